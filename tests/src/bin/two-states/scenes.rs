//! The scenes in their order. Each says what is expected and what was seen, and goes on from where the one before ended.

mod introduction;
mod enrolment;
mod question;
mod licence;
mod over_http;
mod wrong_purpose;
mod registry_stopped;
mod killed;
mod proofs;
mod person;
mod disk;
mod your_turn;

use std::path::Path;

use crate::Own;
use crate::endpoints;
use crate::instance::Instance;
use crate::story::{Scene, Story};

/// Plays the scenes over an instance in `dir`, which is founded unless it stands there already.
pub(crate) async fn play(story: &mut Story, dir: &Path, own: &Own, once: bool) -> anyhow::Result<()> {
    let mut scene = introduction::open(story);
    introduction::play(&mut scene, dir, own);
    story.close(scene, Ok(()));

    let mut scene = enrolment::open(story);
    let founded = if dir.join(endpoints::FILE).exists() {
        enrolment::start_again(&mut scene, dir, own).await
    } else {
        enrolment::found(&mut scene, dir, own).await
    };
    let mut instance = match founded {
        Ok(instance) => {
            story.close(scene, Ok(()));
            instance
        }
        Err(error) => {
            story.close(scene, Err(error));
            return Ok(());
        }
    };
    if own.grpc.is_none() {
        played_against_our_register(story, &mut instance, own.rest.is_none()).await;
    }
    if !once {
        your_turn::play(story, &mut instance, own.grpc.is_some()).await?;
    }
    instance.stop().await
}

/// The scenes that ask the invented register and count its calls.
async fn played_against_our_register(story: &mut Story, instance: &mut Instance, rest: bool) {
    macro_rules! play {
        ($($name:ident),*) => {$(
            let mut scene = $name::open(story);
            let result = $name::play(&mut scene, instance).await;
            story.close(scene, result);
        )*};
    }
    play!(question, licence);
    if rest {
        play!(over_http);
    }
    play!(wrong_purpose, registry_stopped, killed, proofs, person, disk);
}

/// A number of things, readable.
fn count(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// Checks that the register was called `times` more than `before`.
fn check_calls(scene: &mut Scene, before: u64, after: u64, times: u64) {
    scene
        .check(after == before + times, format!("the register's call counter went from {before} to {after}"));
}
