//! Verbs about erasures that are not over: what waits for approval, what another security server told, what is to be told.

use clap::Subcommand;
use trave_proto::clock::Time;
use trave_proto::identifier::ExchangeId;
use trave_proto::schema::operator::{ApproveRequest, DropErasureRequest, ErasureEntry, ListErasuresRequest};

use super::operate::{Door, said, user};

#[derive(Debug, Subcommand)]
pub(super) enum ErasureCommand {
    /// Show those that are not over: id, since, state, the other security server, by whom, reason, exchanges, separated by tabs
    List,
    /// Approve what another person applied for, or what another security server told: the contents are erased at once
    Approve {
        /// The erasure's id
        id: String,
    },
    /// Withdraw what was applied for, or decline what another security server told
    Drop {
        /// The erasure's id
        id: String,
        /// Why; it is logged
        #[arg(long)]
        reason: String,
    },
}

pub(super) fn run(door: &Door<'_>, command: ErasureCommand) -> anyhow::Result<()> {
    match command {
        ErasureCommand::List => list(door),
        ErasureCommand::Approve { id } => {
            let request = ApproveRequest { id: id.clone(), operator: user() };
            let approved = door.with(async |client| client.approve(request).await.map_err(said))?;
            match approved.into_inner().waiting {
                true => {
                    eprintln!("approved, and nothing is erased yet: another person must approve {id}, too")
                }
                false => eprintln!("approved and erased: {id}"),
            }
            Ok(())
        }
        ErasureCommand::Drop { id, reason } => {
            let request = DropErasureRequest { id: id.clone(), reason, operator: user() };
            door.with(async |client| client.drop_erasure(request).await.map_err(said))?;
            eprintln!("dropped: {id}");
            Ok(())
        }
    }
}

fn list(door: &Door<'_>) -> anyhow::Result<()> {
    let listed =
        door.with(async |client| client.list_erasures(ListErasuresRequest {}).await.map_err(said))?;
    let erasures = listed.into_inner().erasures;
    erasures.iter().for_each(|erasure| println!("{}", line(erasure)));
    if erasures.is_empty() {
        eprintln!("no erasure waits");
    }
    Ok(())
}

fn line(entry: &ErasureEntry) -> String {
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let ids = entry.exchange_ids.iter().filter_map(|id| ExchangeId::from_slice(id).ok());
    let exchanges = ids.map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    let since = Time::from_millis(entry.since_ms).to_string();
    let (server, operator, reason) = (dash(&entry.server), dash(&entry.operator), dash(&entry.reason));
    [entry.id.clone(), since, entry.state.clone(), server, operator, reason, exchanges].join("\t")
}

/// What is said of an erasure that was asked for, beside what was erased.
pub(super) fn outlook(id: &str, waiting: bool, telling: &[String]) {
    match (waiting, telling) {
        (true, _) => eprintln!(
            "applied for; nothing is erased yet\nhint: it is when another person runs `erasures approve {id}`"
        ),
        (false, []) => {}
        (false, telling) => eprintln!("told of it, as soon as they are reached: {}", telling.join(", ")),
    }
}
