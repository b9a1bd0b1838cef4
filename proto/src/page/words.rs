//! Every word of the report that is not from the proof, in English and in German.

use std::path::Path;

use super::Language;
use crate::clock::Time;
use crate::message::Ending;
use crate::proof::{Acknowledged, CheckName, Completeness, Conclusion, NotProved, Side};

impl Language {
    /// The one of two texts that is in this language.
    pub fn of<'t>(self, en: &'t str, de: &'t str) -> &'t str {
        match self {
            Self::En => en,
            Self::De => de,
        }
    }
}

/// What stands before an error that ends the program.
pub fn cannot_tell(lang: Language) -> &'static str {
    lang.of("cannot tell", "nicht feststellbar")
}

/// Where the bytes are now.
pub fn extracted(lang: Language, directory: &Path) -> String {
    let directory = directory.display();
    match lang {
        Language::En => format!("extracted to {directory}; check with: sh {directory}/check.sh"),
        Language::De => format!("entnommen nach {directory}; prüfen mit: sh {directory}/check.sh"),
    }
}

/// A time as people read it, in UTC.
pub fn time(lang: Language, time: Time) -> String {
    let text = time.to_string();
    let parts = text.strip_suffix('Z').and_then(|text| text.split_once('T'));
    match (lang, parts) {
        (Language::En, Some((date, clock))) => format!("{date} {clock} UTC"),
        (Language::De, Some((date, clock))) => {
            let date: Vec<_> = date.rsplit('-').collect();
            format!("{}, {} Uhr (UTC)", date.join("."), clock.replace('.', ","))
        }
        (_, None) => text,
    }
}

/// The verdict.
pub fn conclusion(lang: Language, conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Holds => lang.of("THE PROOF HOLDS", "DIE BEWEISDATEI HÄLT DER PRÜFUNG STAND"),
        Conclusion::DoesNotHold => {
            lang.of("THE PROOF DOES NOT HOLD", "DIE BEWEISDATEI HÄLT DER PRÜFUNG NICHT STAND")
        }
        Conclusion::CannotTell => lang.of(
            "IT CANNOT BE TOLD WHETHER THE PROOF HOLDS",
            "ES IST NICHT FESTSTELLBAR, OB DIE BEWEISDATEI DER PRÜFUNG STANDHÄLT",
        ),
    }
}

/// What stands above the story.
pub fn introduction(lang: Language, conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Holds => lang.of("What is proved", "Was bewiesen ist"),
        _ => lang.of(
            "What the file claims – NOT PROVED, see the checks below",
            "Was die Datei behauptet – NICHT BEWIESEN, siehe die Prüfungen unten",
        ),
    }
}

/// Whether the exchange is whole.
pub fn completeness(lang: Language, completeness: &Completeness) -> String {
    let counted = |what: &str, requests: &u64, responses: &u64| match lang {
        Language::En => format!("{what}: {requests} messages of the request, {responses} of the response"),
        Language::De => format!("{what}: {requests} Nachrichten der Anfrage, {responses} der Antwort"),
    };
    match completeness {
        Completeness::Whole => lang
            .of(
                "whole, from the first to the last message",
                "vollständig, von der ersten bis zur letzten Nachricht",
            )
            .to_owned(),
        Completeness::AnsweredEarly { requests, responses } => {
            let what = lang.of(
                "the answer is whole; it came before the end of the request, which is NOT here",
                "die Antwort ist vollständig; sie kam vor dem Ende der Anfrage, das hier FEHLT",
            );
            counted(what, requests, responses)
        }
        Completeness::BrokenOff { requests, responses } => {
            counted(lang.of("INCOMPLETE, broken off", "UNVOLLSTÄNDIG, abgebrochen"), requests, responses)
        }
        Completeness::Open { requests, responses } => {
            counted(lang.of("OPEN, without an end", "OFFEN, ohne Ende"), requests, responses)
        }
    }
}

/// How far the receivers themselves say that they had come.
pub fn acknowledged(lang: Language, acknowledged: Acknowledged) -> String {
    let Acknowledged { requests, responses } = acknowledged;
    match lang {
        Language::En => {
            format!("acknowledged by their receiver: {requests} of the request, {responses} of the response")
        }
        Language::De => format!("vom Empfänger bestätigt: {requests} der Anfrage, {responses} der Antwort"),
    }
}

/// How a message ended.
pub fn ending(lang: Language, ending: Ending) -> &'static str {
    match ending {
        Ending::End => lang.of("last of its direction", "letzte ihrer Richtung"),
        Ending::Abort => lang.of("broken off here", "hier abgebrochen"),
        _ => lang.of("more follow", "weitere folgen"),
    }
}

/// Whose log it is from.
pub fn side(lang: Language, side: Side) -> &'static str {
    match side {
        Side::Client => lang.of("the one who asked", "der anfragenden Seite"),
        Side::Provider => lang.of("the one who was asked", "der angefragten Seite"),
    }
}

/// What a check is about, as a statement that holds or does not.
pub fn check(lang: Language, name: CheckName) -> &'static str {
    match name {
        CheckName::Structure => lang.of(
            "The file holds everything that its records name, nothing twice and nothing else",
            "Die Datei enthält alles, was ihre Einträge nennen, nichts doppelt und nichts anderes",
        ),
        CheckName::Anchors => lang.of(
            "The chain of trust begins at your own configuration anchor",
            "Die Vertrauenskette beginnt bei Ihrem eigenen Konfigurationsanker",
        ),
        CheckName::Configurations => lang.of(
            "The global configuration of that time is signed by as many keys as the anchor demands",
            "Die damalige globale Konfiguration trägt so viele Signaturen, wie der Anker verlangt",
        ),
        CheckName::Checkpoint => lang.of(
            "The checkpoint is signed with the key of this security server's log",
            "Der Prüfstand ist mit dem Schlüssel des Protokolls dieses Sicherheitsservers signiert",
        ),
        CheckName::Timestamp => lang.of(
            "A timestamping authority stamped the checkpoint",
            "Ein Zeitstempeldienst hat den Prüfstand gestempelt",
        ),
        CheckName::Cosignatures => lang.of(
            "Witnesses that the configuration lists have cosigned the checkpoint",
            "Zeugen, die die Konfiguration nennt, haben den Prüfstand gegengezeichnet",
        ),
        CheckName::Inclusion => lang.of(
            "Each record stands unaltered in the log under this checkpoint",
            "Jeder Eintrag steht unverändert im Protokoll unter diesem Prüfstand",
        ),
        CheckName::Bindings => lang.of(
            "Each record binds exactly this signature and the sender's log",
            "Jeder Eintrag bindet genau diese Signatur und das Protokoll des Absenders",
        ),
        CheckName::Signatures => lang.of(
            "Each message is signed by the member and security server that may sign it; the certificates were valid and not revoked",
            "Jede Nachricht ist von dem Mitglied und Sicherheitsserver signiert, die dies dürfen; die Zertifikate waren gültig und nicht gesperrt",
        ),
        CheckName::Connections => lang.of(
            "The messages travelled between these two security servers",
            "Die Nachrichten gingen zwischen diesen beiden Sicherheitsservern",
        ),
        CheckName::Order => lang.of(
            "No message between the first and the last one here is missing, doubled or reordered",
            "Zwischen der ersten und der letzten Nachricht hier fehlt keine, ist keine doppelt oder vertauscht",
        ),
        CheckName::Completeness => lang.of(
            "It is known how the exchange ended",
            "Es steht fest, wie der Austausch endete",
        ),
        CheckName::Contents => lang.of(
            "The contents in the file are those that were signed; what is missing is missing for a recorded or declared reason",
            "Die Inhalte in der Datei sind die signierten; was fehlt, fehlt aus einem protokollierten oder angegebenen Grund",
        ),
        CheckName::CallerContext => lang.of(
            "The caller's declaration is the one that was signed",
            "Die Angaben des Aufrufers sind die signierten",
        ),
        CheckName::Permission => lang.of(
            "The provider had permitted this client to ask this for this purpose",
            "Der Anbieter hatte diesem Aufrufer diese Anfrage zu diesem Zweck gestattet",
        ),
        CheckName::Catalogue => lang.of(
            "Service, purpose and legal basis stand in the catalogue of that time",
            "Dienst, Zweck und Rechtsgrundlage stehen im damaligen Katalog",
        ),
        CheckName::Times => lang.of(
            "The recorded times do not contradict one another",
            "Die festgehaltenen Zeiten widersprechen einander nicht",
        ),
    }
}

/// What is not proved.
pub fn not_proved(lang: Language, open: NotProved) -> &'static str {
    match open {
        NotProved::Witness => lang.of(
            "That nobody was shown another version of this log: no witness of another state has cosigned the checkpoint (yet).",
            "Dass niemandem eine andere Fassung dieses Protokolls gezeigt wurde: Es fehlt (noch) die Gegenzeichnung des Prüfstands durch einen Zeugen eines anderen Landes.",
        ),
        NotProved::Collusion => lang.of(
            "Anything against both sides at once: whoever holds the keys of both security servers can record together what did not happen.",
            "Etwas gegen beide Seiten zugleich: Wer die Schlüssel beider Sicherheitsserver hat, kann gemeinsam festhalten, was nicht geschah.",
        ),
        NotProved::RegisterTruth => lang.of(
            "That the register's data are true: proved is what was answered, not that it is so.",
            "Dass die Daten des Registers stimmen: Bewiesen ist, was geantwortet wurde, nicht, dass es so ist.",
        ),
        NotProved::NothingElse => lang.of(
            "That nothing else was asked or answered: this file is about one exchange.",
            "Dass sonst nichts gefragt oder geantwortet wurde: Diese Datei handelt von einem einzigen Austausch.",
        ),
        NotProved::ExactTimes => lang.of(
            "The exact time of each message: proved is that all existed at the timestamp; times before it are the servers' clocks.",
            "Die genaue Zeit jeder Nachricht: Bewiesen ist, dass alles zum Zeitstempel vorlag; frühere Zeiten sind die der Uhren der Server.",
        ),
        NotProved::Delivery => lang.of(
            "That the message arrived beyond the security server that recorded it, and what was made of it there.",
            "Dass die Nachricht über den protokollierenden Sicherheitsserver hinaus ankam und was dort daraus wurde.",
        ),
        NotProved::CallerContextDeclared => lang.of(
            "That the caller's declaration (user, case, person concerned) is true: it was declared and signed, not verified.",
            "Dass die Angaben des Aufrufers (Nutzer, Vorgang, betroffene Person) stimmen: Sie wurden erklärt und signiert, nicht geprüft.",
        ),
        NotProved::DeclaredByRoute => lang.of(
            "That the caller itself named client, service, purpose and legal basis: a route in the security server's settings declared at least one of them.",
            "Dass der Aufrufer selbst Teilsystem, Dienst, Zweck und Rechtsgrundlage nannte: Mindestens eines davon hat eine Route in den Einstellungen des Sicherheitsservers erklärt.",
        ),
        NotProved::BeyondBridge => lang.of(
            "What lies beyond the bridge to X-Road: that the client named there asked, or that the service named there answered this. The bridge signed as itself and declares it; that instance's own logs tell the rest.",
            "Was jenseits der Brücke zu X-Road liegt: dass der dort genannte Aufrufer fragte oder der dort genannte Dienst dies antwortete. Die Brücke signierte in eigenem Namen und erklärt es; das Übrige steht in den Protokollen jener Instanz.",
        ),
        NotProved::ContentNotIncluded => lang.of(
            "What was said where the content is not in this file: proved is that a content of that length was signed, not which.",
            "Was gesagt wurde, wo der Inhalt nicht in der Datei ist: Bewiesen ist, dass ein Inhalt dieser Länge signiert wurde, nicht welcher.",
        ),
        NotProved::ProviderPermission => lang.of(
            "Whether the provider had permitted the request: that is recorded in the provider's log.",
            "Ob der Anbieter die Anfrage gestattet hatte: Das steht im Protokoll des Anbieters.",
        ),
        NotProved::LoggedThen => lang.of(
            "That this log held every message at its time: what is marked as recovered had been lost here and came back from the other security server. Its signature holds; when it was sent and received, only the other log can say.",
            "Dass dieses Protokoll jede Nachricht zu ihrer Zeit enthielt: Was als wiederhergestellt bezeichnet ist, war hier verloren und kam vom anderen Sicherheitsserver zurück. Die Signatur gilt; wann die Nachricht gesendet und empfangen wurde, sagt nur das andere Protokoll.",
        ),
        NotProved::GrantEndpoint => lang.of(
            "That the permission covers this HTTP method and path: they stand in the content, which is not in this file.",
            "Dass die Gestattung diese HTTP-Methode und diesen Pfad umfasst: Sie stehen im Inhalt, der nicht in der Datei ist.",
        ),
        NotProved::GrantInclusion => lang.of(
            "That the permission stands in the provider's log where it says: the file holds its record, which the message's record names, not its place. Nor that it, or the group it names, was not withdrawn or changed before, or that a rate was kept.",
            "Dass die Gestattung im Protokoll des Anbieters steht: Die Datei enthält ihren Eintrag, den der Eintrag der Nachricht nennt, nicht dessen Platz. Auch nicht, dass sie oder die darin genannte Gruppe nicht vorher entzogen oder geändert wurde oder dass eine Rate eingehalten wurde.",
        ),
    }
}

/// Why a check does not hold: the reasons are technical, and in English alone.
pub fn reason(lang: Language, why: &str) -> String {
    match lang {
        Language::En => why.to_owned(),
        Language::De => format!("technische Begründung (englisch): {why}"),
    }
}

/// That something was only said.
pub fn hearsay(lang: Language) -> &'static str {
    lang.of(
        ", said the provider's side; nobody signed that",
        ", sagte die Seite des Anbieters; signiert hat das niemand",
    )
}

/// How an exchange ended, and whether the register was reached, in words.
pub fn plain(lang: Language, word: &str) -> &str {
    match (lang, word) {
        (Language::De, "failed") => "gescheitert",
        (Language::De, "aborted") => "abgebrochen",
        (Language::De, "yes") => "ja",
        (Language::De, "no") => "nein",
        (Language::De, "unknown") => "unbekannt",
        _ => word,
    }
}

/// The name of a gRPC status code.
pub fn grpc_status(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_write_them() {
        let at = Time::from_millis(1_795_288_440_005);
        assert_eq!(time(Language::En, at), "2026-11-21 19:14:00.005 UTC");
        assert_eq!(time(Language::De, at), "21.11.2026, 19:14:00,005 Uhr (UTC)");
    }
}
