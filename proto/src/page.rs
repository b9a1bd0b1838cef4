//! The report of a proof for a person, on a page of plain text, in English and in German.

pub mod safe;
pub mod words;

use crate::digest::Digest;
use crate::global_configuration::Anchor;
use crate::message::Direction;
use crate::proof::{
    Answer, CallerContextStory, Check, CheckName, Completeness, ContentStory, MessageStory, Named, Outcome,
    Proof, Report, Story, Term,
};

/// The languages of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English
    En,
    /// Deutsch
    De,
}

/// Messages of one direction that are told one by one.
const TOLD: usize = 20;
/// Longest value that is shown, in characters.
const LONGEST: usize = 400;
const LABEL: usize = 22;

/// The page.
pub fn of(report: &Report, proof: &Proof, anchor: &Anchor, lang: Language) -> String {
    let mut page = Page { text: String::new(), lang };
    page.line("", words::conclusion(lang, report.conclusion));
    page.row(
        lang.of("Anchor", "Konfigurationsanker"),
        &format!("{} {}, SHA-256 {}", anchor.instance(), anchor.number(), anchor.digest()),
    );
    page.row(lang.of("Proof", "Beweisdatei"), &format!("SHA-256 {}", Digest::of(&proof.encode())));
    if let Some(story) = &report.story {
        page.heading(words::introduction(lang, report.conclusion));
        page.story(story);
    }
    page.heading(lang.of("Why: the checks", "Warum: die Prüfungen"));
    for check in &report.checks {
        page.check(check);
    }
    page.heading(lang.of("What this proof does not prove", "Was diese Beweisdatei nicht beweist"));
    for open in &report.not_proved {
        page.line("  – ", words::not_proved(lang, *open));
    }
    page.text
}

/// Every text passes [`Page::line`], and there everything from the proof is made harmless.
struct Page {
    text: String,
    lang: Language,
}

impl Page {
    fn line(&mut self, prefix: &str, text: &str) {
        self.text.push_str(prefix);
        self.text.push_str(&safe::short(text, 4 * LONGEST));
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.text.push('\n');
        self.line("", heading);
    }

    fn row(&mut self, label: &str, value: &str) {
        let blank = LABEL.saturating_sub(label.chars().count()).max(1);
        let value: String =
            value.chars().take(LONGEST).chain((value.chars().count() > LONGEST).then_some('…')).collect();
        self.line(&format!("  {label}{}", " ".repeat(blank)), &value);
    }

    fn story(&mut self, story: &Story) {
        let lang = self.lang;
        self.named(lang.of("Who asked", "Wer fragte"), &story.client);
        self.row("", &format!("{} {}", lang.of("through", "über"), story.client_server));
        self.named(lang.of("Whom", "Wen"), &story.service);
        self.row("", &format!("{} {}", lang.of("through", "über"), story.provider_server));
        if let Some(method) = &story.method {
            self.row(lang.of("For what", "Was"), method.as_str());
        }
        if let Some(asked) = &story.asked {
            let label = if story.method.is_some() { "" } else { lang.of("For what", "Was") };
            self.row(label, &format!("{} {}", asked.method, asked.path));
        }
        self.term(lang.of("Purpose", "Zweck"), &story.purpose);
        self.term(lang.of("Legal basis", "Rechtsgrundlage"), &story.legal_basis);
        if let Some(route) = &story.route {
            self.row(lang.of("Declared by", "Erklärt durch"), &format!("Route {route}"));
        }
        self.bridged(story);
        self.caller_context(&story.caller_context);
        if let Some(answer) = &story.answer {
            self.answer(answer);
        }
        self.row(lang.of("Exchange", "Austausch"), &story.exchange.to_string());
        self.row("", &words::completeness(lang, &story.completeness));
        if let Some(acknowledged) = story.acknowledged.filter(|_| story.completeness != Completeness::Whole) {
            self.row("", &words::acknowledged(lang, acknowledged));
        }
        self.end(story);
        self.messages(lang.of("Request", "Anfrage"), &story.requests);
        self.messages(lang.of("Response", "Antwort"), &story.responses);
        self.seal(story);
    }

    fn bridged(&mut self, story: &Story) {
        let lang = self.lang;
        let from = story.bridged_from.as_ref().map(|client| client.as_str());
        let to = story.bridged_to.as_ref().map(|service| service.as_str());
        if let Some(client) = from {
            self.row(lang.of("Bridged from X-Road", "Brücke von X-Road"), client);
        }
        if let Some(service) = to {
            self.row(lang.of("Bridged to X-Road", "Brücke zu X-Road"), service);
        }
        if from.or(to).is_some() {
            let beyond = lang.of(
                "(what lies beyond the bridge is not proved by this file)",
                "(was jenseits der Brücke liegt, beweist diese Datei nicht)",
            );
            self.row("", beyond);
        }
    }

    fn named(&mut self, label: &str, named: &Named) {
        self.row(label, &format!("{}, {}", named.name, named.member));
        self.row("", &named.id);
    }

    fn term(&mut self, label: &str, term: &Term) {
        let text = self.lang.of(&term.text, &term.text_de);
        self.row(label, &format!("{} – {text}", term.code));
        self.row("", &term.citation);
    }

    fn caller_context(&mut self, context: &CallerContextStory) {
        let lang = self.lang;
        let label = lang.of("Declared by caller", "Angaben des Aufrufers");
        let context = match context {
            CallerContextStory::NotDeclared => return self.row(label, lang.of("nothing", "keine")),
            CallerContextStory::NotIncluded => {
                return self.row(label, lang.of("given, not in this file", "gemacht, nicht in dieser Datei"));
            }
            CallerContextStory::Included(context) => context,
        };
        self.row(label, lang.of("(declared, not verified)", "(erklärt, nicht geprüft)"));
        for (what, value) in [
            (lang.of("user", "Nutzer"), &context.user),
            (lang.of("case", "Vorgang"), &context.issue),
            (lang.of("person concerned", "betroffene Person"), &context.subject),
            (lang.of("acting for", "handelt für"), &context.represented_party),
            (lang.of("caller's message id", "Nachrichten-ID des Aufrufers"), &context.message_id),
        ] {
            if !value.is_empty() {
                self.row("", &format!("{what}: {value}"));
            }
        }
    }

    fn answer(&mut self, answer: &Answer) {
        let mut parts = Vec::new();
        if let Some(status) = answer.http_status {
            parts.push(format!("HTTP {status}"));
        }
        if let Some(status) = answer.grpc_status {
            parts.push(format!("gRPC {status} {}", words::grpc_status(status)));
        }
        if let Some(message) = answer.grpc_message.as_ref().filter(|message| !message.is_empty()) {
            parts.push(format!("»{message}«"));
        }
        self.row(self.lang.of("Answered", "Geantwortet"), &parts.join(", "));
    }

    fn end(&mut self, story: &Story) {
        let lang = self.lang;
        if let Some(ended) = &story.ended {
            let at = words::time(lang, ended.at);
            let outcome = words::plain(lang, ended.outcome);
            let text = format!("{at}: {outcome}, {} ({})", ended.reason, ended.side);
            self.row(lang.of("Ended", "Beendet"), &text);
            let reached =
                ended.register_reached.as_str_name().trim_start_matches("REGISTER_REACHED_").to_lowercase();
            let label = lang.of("register reached", "Register erreicht");
            let mut text = format!("{label}: {}", words::plain(lang, &reached));
            if ended.by_hearsay {
                text.push_str(words::hearsay(lang));
            }
            self.row("", &text);
            if let Some(again) = ended.continued_as {
                let label = lang.of("the call was made again as", "der Aufruf wurde wiederholt als");
                self.row("", &format!("{label} {again}"));
            }
        }
        if let Some(erased) = &story.erased {
            let text = format!("{}: {} ({})", words::time(lang, erased.at), erased.reason, erased.operator);
            self.row(lang.of("Contents erased", "Inhalte gelöscht"), &text);
        }
    }

    fn messages(&mut self, label: &str, messages: &[MessageStory]) {
        for (at, message) in messages.iter().take(TOLD).enumerate() {
            self.row(if at == 0 { label } else { "" }, &self.message(message));
        }
        if messages.len() > TOLD {
            let more = messages.len() - TOLD;
            self.row("", &format!("… {more} {}", self.lang.of("more messages", "weitere Nachrichten")));
        }
    }

    fn message(&self, message: &MessageStory) -> String {
        let lang = self.lang;
        let content = match &message.content {
            ContentStory::Included(_) => lang.of("content in this file", "Inhalt in dieser Datei"),
            ContentStory::NotKept => lang.of("content not kept", "Inhalt nicht aufbewahrt"),
            ContentStory::Erased => lang.of("content erased", "Inhalt gelöscht"),
            ContentStory::Withheld => lang.of("content left out", "Inhalt weggelassen"),
            ContentStory::Mismatch => lang.of("content: MISMATCH", "Inhalt: WIDERSPRUCH"),
        };
        let verb = match message.direction {
            Direction::Response => lang.of("answered", "geantwortet"),
            _ => lang.of("asked", "gefragt"),
        };
        let recorded = match &message.recovered_from {
            None => lang.of("recorded", "protokolliert").to_owned(),
            Some(peer) => {
                format!(
                    "{} {peer}",
                    lang.of("lost here, recovered from", "hier verloren, wiederhergestellt von")
                )
            }
        };
        format!(
            "{} {verb} {}, {recorded} {}, {} {}, {content}; {}",
            message.index,
            words::time(lang, message.created),
            words::time(lang, message.logged),
            message.length,
            lang.of("bytes", "Bytes"),
            words::ending(lang, message.ending),
        )
    }

    fn seal(&mut self, story: &Story) {
        let lang = self.lang;
        if let Some(grant) = &story.grant {
            let text = format!("{} ({}, {})", grant.id, grant.operator, words::time(lang, grant.at));
            self.row(lang.of("Permitted by", "Gestattet durch"), &text);
            if let Some(approver) = &grant.approver {
                self.row(lang.of("Approved by", "Freigegeben von"), approver);
            }
            if grant.subject.contains("-group:") {
                let since = grant.group_at.map(|at| format!(", {}", words::time(lang, at)));
                let text = format!("{}{}", grant.subject, since.unwrap_or_default());
                self.row(lang.of("Permitted to", "Gestattet für"), &text);
            }
        }
        for (number, digest) in &story.configurations {
            let label = lang.of("Configuration", "Konfiguration");
            self.row(label, &format!("{number}, SHA-256 {digest}"));
        }
        self.row(lang.of("Recorded by", "Protokolliert von"), words::side(lang, story.side));
        if let Some(sealed) = &story.sealed {
            self.row("", &sealed.origin);
            let text = format!("{} ({})", words::time(lang, sealed.not_later_than), sealed.authority);
            self.row(lang.of("Not later than", "Spätestens"), &text);
        }
        for witness in &story.witnesses {
            let text = format!("{} ({}), {}", witness.name, witness.class, words::time(lang, witness.at));
            self.row(lang.of("Witnessed by", "Bezeugt von"), &text);
        }
    }

    fn check(&mut self, check: &Check) {
        let lang = self.lang;
        let (mark, why) = match &check.outcome {
            Outcome::Holds => (lang.of("  holds        ", "  hält          "), None),
            Outcome::Fails(why) => (lang.of("  DOES NOT HOLD ", "  HÄLT NICHT    "), Some(why)),
            Outcome::CannotTell(why) => (lang.of("  CANNOT TELL  ", "  UNGEWISS      "), Some(why)),
        };
        self.line(mark, words::check(lang, check.name));
        let indented = "                ";
        match why {
            Some(why) => self.line(indented, &words::reason(lang, why)),
            // In German only what reads the same in every language.
            None if lang == Language::En || is_bare(check.name) => self.line(indented, &check.detail),
            None => {}
        }
    }
}

/// Whether what a check found is names, numbers and digests alone.
fn is_bare(name: CheckName) -> bool {
    use CheckName::{
        Catalogue, Checkpoint, Connections, Cosignatures, Inclusion, Permission, Signatures, Timestamp,
    };
    matches!(
        name,
        Checkpoint | Timestamp | Cosignatures | Inclusion | Signatures | Connections | Permission | Catalogue
    )
}
