//! What is done, and by whom it is found out: the rows of `docs/tampering.md`, word for word.

/// Who finds something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    OwnStart,
    CheckLog,
    Witness,
    Verifier,
    OtherSide,
    KeptProof,
}

impl By {
    /// As the document says it: who, and when.
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::OwnStart => "the server itself, at its start",
            Self::CheckLog => "`check-log`, when somebody runs it",
            Self::Witness => "a witness, at the next checkpoint",
            Self::Verifier => "`trave-verify`, of a proof from this log",
            Self::OtherSide => "the other side's log, when the two are compared",
            Self::KeptProof => "whoever kept an earlier proof, when it is held against this log",
        }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Scratch,
    RewriteAndLeaveTheRest,
    Rewrite,
    HideRecord,
    HideExchange,
    TruncateAndLeaveTheRest,
    Truncate,
    TruncateUnseen,
    TruncateUnseenOnBothSides,
    Fork,
    StolenKey,
    OldLog,
    OldBackup,
    OldBackupCutOff,
    OldBackupOfAll,
    BeginAnewAndLeaveTheRest,
    BeginAnew,
    InventExchange,
    SetClockBack,
    SetClockBackALittle,
    OldTimestamp,
    DestroyKeys,
    SayNotKept,
    AskPastTheServers,
}

/// A row: the deed, in words, and everybody who finds it out, with a part of what they say.
pub(crate) type Row = (Deed, &'static str, &'static [(By, &'static str)]);

const ALARM: (By, &str) = (By::Witness, "ALARM: a witness contradicts this message log");
pub(crate) const UNWITNESSED: (By, &str) =
    (By::Verifier, "no witness of another state has cosigned the checkpoint");
const UNPROVED: (By, &str) = (By::Verifier, "the proof does not hold");
const LOST: (By, &str) = (By::OtherSide, "knows no exchange");
const KEPT: (By, &str) = (By::KeptProof, "");

pub(crate) const ROWS: &[Row] = &[
    (Deed::Scratch, "changes bytes of a record, and nothing else", &[(By::OwnStart, "is damaged at byte")]),
    (
        Deed::RewriteAndLeaveTheRest,
        "rewrites a record, and with it markers, index, tree and checkpoint",
        &[(By::OwnStart, "it was seen by witnesses, and its records give another root")],
    ),
    (Deed::Rewrite, "the same, and removes `data/witnessed`", &[ALARM, UNPROVED, KEPT]),
    (
        Deed::HideRecord,
        "takes one record out, renumbers all others, removes `data/witnessed`",
        &[ALARM, UNWITNESSED, (By::OtherSide, ""), KEPT],
    ),
    (Deed::HideExchange, "the same with all records of an exchange", &[ALARM, UNWITNESSED, LOST, KEPT]),
    (
        Deed::TruncateAndLeaveTheRest,
        "cuts off records that were witnessed",
        &[(By::OwnStart, "it was seen by witnesses, and the log has only")],
    ),
    (Deed::Truncate, "the same, and removes `data/witnessed`", &[ALARM, UNWITNESSED, LOST, KEPT]),
    (Deed::TruncateUnseen, "cuts off records that no witness has seen yet", &[LOST]),
    (Deed::TruncateUnseenOnBothSides, "the same, in the logs of both states", &[]),
    (
        Deed::Fork,
        "keeps the witnesses away, and shows a stranger another story that goes on from one past",
        &[ALARM, UNWITNESSED, LOST, KEPT],
    ),
    (
        Deed::StolenKey,
        "steals the log's key, goes on with the log elsewhere, and shows the witnesses that first",
        &[ALARM, UNWITNESSED],
    ),
    (
        Deed::OldLog,
        "puts back an old copy of the log",
        &[(By::OwnStart, "it was seen by witnesses, and the log has only")],
    ),
    (Deed::OldBackup, "puts back an old backup of the whole data directory", &[ALARM, LOST, KEPT]),
    (
        Deed::OldBackupCutOff,
        "the same, and keeps the witnesses away; the alarm comes when one is reached",
        &[ALARM, LOST, KEPT],
    ),
    (
        Deed::OldBackupOfAll,
        "the same, together with old backups of the witnesses of both states",
        &[LOST, KEPT],
    ),
    (
        Deed::BeginAnewAndLeaveTheRest,
        "removes the log, and begins anew under the same key",
        &[(By::OwnStart, "it was seen by witnesses, and the log has only 0 whole records")],
    ),
    (Deed::BeginAnew, "the same, and removes `data/witnessed`", &[ALARM, LOST, KEPT]),
    (Deed::InventExchange, "appends an exchange that the other side never signed", &[UNPROVED, LOST]),
    (
        Deed::SetClockBack,
        "dates records that no witness has seen yet back by an hour",
        &[(By::Verifier, "recorded at")],
    ),
    (Deed::SetClockBackALittle, "the same by a second", &[]),
    (
        Deed::OldTimestamp,
        "puts an older timestamp into a proof",
        &[(By::Verifier, "the timestamp is about another digest")],
    ),
    (
        Deed::DestroyKeys,
        "overwrites the keys of contents, and logs no erasure",
        &[
            (By::CheckLog, "does not hold the exchange's key, and no record says that it was erased"),
            (By::Verifier, "MISMATCH at record"),
        ],
    ),
    (Deed::SayNotKept, "takes contents out, and says that they were never kept", &[]),
    (Deed::AskPastTheServers, "has the register asked past the security servers", &[]),
];

/// The rows as the document must have them.
fn rows() -> Vec<String> {
    let cell = |(by, says): &(By, &str)| match *says {
        "" => by.in_words().to_owned(),
        says => format!("{}: \u{201c}{says}\u{201d}", by.in_words()),
    };
    let row = |(_, what, by): &Row| {
        let by: Vec<_> = by.iter().map(cell).collect();
        format!("| {what} | {} |", if by.is_empty() { "**nobody**".to_owned() } else { by.join("; ") })
    };
    ROWS.iter().map(row).collect()
}

#[test]
fn the_document_has_these_rows() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tampering.md");
    let document = std::fs::read_to_string(path).unwrap_or_default();
    let table = document.lines().skip_while(|line| !line.starts_with("| what is done |")).skip(2);
    let table: Vec<_> = table.take_while(|line| line.starts_with('|')).collect();
    assert_eq!(table, rows(), "write these:\n{}\n", rows().join("\n"));
}
