//! Verbs about alarms: which there are, and that somebody has looked into one.

use clap::Subcommand;
use trave_proto::clock::Time;
use trave_proto::schema::operator::{AcknowledgeAlarmRequest, AlarmEntry, ListAlarmsRequest};

use super::operate::{Door, said, user};

#[derive(Debug, Subcommand)]
pub(super) enum AlarmCommand {
    /// Show them: id, kind, the other security server, "open" or since when, by whom and why it was acknowledged, what was
    /// found, separated by tabs
    List,
    /// Take one off the status, once somebody has looked into it. Whatever is found later raises it again
    Acknowledge {
        /// The alarm's id, as `alarms list` shows it: it stands for what was found by then, and for nothing later
        id: String,
        /// What was looked into, and what was done; it is logged
        #[arg(long)]
        reason: String,
    },
}

pub(super) fn run(door: &Door<'_>, command: AlarmCommand) -> anyhow::Result<()> {
    match command {
        AlarmCommand::List => {
            let listed =
                door.with(async |client| client.list_alarms(ListAlarmsRequest {}).await.map_err(said))?;
            let alarms = listed.into_inner().alarms;
            alarms.iter().for_each(|alarm| println!("{}", line(alarm)));
            if alarms.is_empty() {
                eprintln!("there is no alarm");
            }
        }
        AlarmCommand::Acknowledge { id, reason } => {
            let request = AcknowledgeAlarmRequest { id: id.clone(), reason, operator: user() };
            door.with(async |client| client.acknowledge_alarm(request).await.map_err(said))?;
            eprintln!("acknowledged: {id}");
        }
    }
    Ok(())
}

fn line(alarm: &AlarmEntry) -> String {
    let AlarmEntry { id, kind, peer, what, acknowledged_by, acknowledged_ms, reason } = alarm;
    let state = match acknowledged_ms {
        0 => "open".to_owned(),
        at => format!("acknowledged {} by {acknowledged_by}: {reason}", Time::from_millis(*at)),
    };
    [id, kind, peer, &state, what].map(String::as_str).join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_one_line_and_says_whether_somebody_has_looked_into_it() {
        let mut alarm = AlarmEntry {
            id: "a-1f2e3d4c5b6a79881f2e3d4c5b6a7988".into(),
            kind: "logs_disagree".into(),
            peer: "NORD/MV/a/s1".into(),
            what: "1 messages differ".into(),
            ..AlarmEntry::default()
        };
        assert_eq!(
            line(&alarm),
            "a-1f2e3d4c5b6a79881f2e3d4c5b6a7988\tlogs_disagree\tNORD/MV/a/s1\topen\t1 messages differ"
        );
        (alarm.acknowledged_by, alarm.acknowledged_ms) = ("Muster".into(), 1_000);
        alarm.reason = "Platte getauscht".into();
        let told = line(&alarm);
        assert!(
            told.contains("\tacknowledged 1970-01-01T00:00:01.000Z by Muster: Platte getauscht\t"),
            "{told}"
        );
    }
}
