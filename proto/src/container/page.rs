//! What a container says to people: the page about it, the table of its parts, and its README, in English and in German.

use super::parts::{Part, PartName, PartState};
use super::verify::ContainerReport;
use crate::certificate::SecurityServerCertificate;
use crate::digest::Digest;
use crate::global_configuration::Anchor;
use crate::identifier::ExchangeId;
use crate::message::Direction;
use crate::page::{self, Language, safe, words};
use crate::proof::Conclusion;

/// The page of a container: the verdict, each part, who sealed it, then the page of the proof inside.
pub fn of(report: &ContainerReport, file: &[u8], anchor: &Anchor, lang: Language) -> String {
    let mut page = format!("{}\n", conclusion(lang, report.conclusion));
    page.push_str(&format!("  {} SHA-256 {}\n\n", lang.of("Container", "Container"), Digest::of(file)));
    page.push_str(&states(lang, &report.parts));
    for why in &report.why {
        page.push_str(&format!("  ! {}\n", safe::short(&words::reason(lang, why), 1600)));
    }
    if let Some(seal) = &report.sealed {
        page.push_str(&format!(
            "\n{}\n",
            lang.of("Who sealed the container", "Wer den Container gesiegelt hat")
        ));
        let rows = [
            (lang.of("Security server", "Sicherheitsserver"), format!("{} ({})", seal.server, seal.member)),
            (lang.of("At, by its own clock", "Wann, nach eigener Uhr"), words::time(lang, seal.at)),
            (
                lang.of("Not later than", "Spätestens"),
                format!("{} ({})", words::time(lang, seal.stamp.not_later_than), seal.stamp.authority),
            ),
            (lang.of("Configuration", "Konfiguration"), seal.configuration.to_string()),
        ];
        for (label, value) in rows {
            page.push_str(&format!("  {label:<24}{}\n", safe::short(&value, 400)));
        }
    }
    page.push_str(&format!("  {}\n", not_qualified(lang)));
    if report.sealed.is_some() {
        page.push_str(&archived(report, lang));
    }
    if let Some((proof, of)) = &report.proof {
        page.push_str(&format!("\n== {} ==\n\n", lang.of("The proof in it", "Die Beweisdatei darin")));
        page.push_str(&page::of(of, proof, anchor, lang));
    }
    page
}

/// The archive timestamps, and by when the next one is wanted.
fn archived(report: &ContainerReport, lang: Language) -> String {
    let mut text = format!("\n{}\n", lang.of("Archive timestamps", "Archivzeitstempel"));
    for one in &report.archived {
        let stamp = &one.stamp;
        let (when, files) = (words::time(lang, stamp.not_later_than), one.files);
        let status = match (stamp.status, lang) {
            (Some(at), Language::En) => format!("not revoked as of {}", words::time(lang, at)),
            (Some(at), Language::De) => format!("nicht gesperrt, Auskunft vom {}", words::time(lang, at)),
            (None, _) => lang.of("not in the container", "nicht im Container enthalten").into(),
        };
        let rows = [
            (lang.of("Not later than", "Spätestens"), format!("{when} ({})", stamp.authority)),
            (
                lang.of("It covers", "Er erstreckt sich auf"),
                match lang {
                    Language::En => format!("all {files} files that stand before it"),
                    Language::De => format!("alle {files} Dateien, die vor ihm stehen"),
                },
            ),
            (lang.of("Authority's certificate", "Zertifikat des Dienstes"), status),
            (lang.of("Configuration", "Konfiguration"), one.configuration.to_string()),
        ];
        for (at, (label, value)) in rows.iter().enumerate() {
            let number = if at == 0 { one.number.to_string() } else { String::new() };
            text.push_str(&format!("  {number:<3}{label:<24}{}\n", safe::short(value, 400)));
        }
    }
    if report.archived.is_empty() {
        text.push_str(&format!("  {}\n", lang.of("none", "keiner")));
    }
    if let Some(last) = report.last_stamp() {
        let (end, authority) = (words::time(lang, last.until), safe::short(&last.authority, 200));
        text.push_str(&match lang {
            Language::En => format!(
                "  To be renewed before {end}, when the certificate of {authority} ends.\n  Other validators of signatures want this; what \
                 is verified here is not affected by it.\n"
            ),
            Language::De => format!(
                "  Zu erneuern vor dem {end}, dem Ende des Zertifikats von {authority}.\n  Andere Prüfprogramme für Signaturen verlangen \
                 dies; die hiesige Prüfung berührt es nicht.\n"
            ),
        });
    }
    text
}

/// A line for each part: what it is, what became of it, where it stands.
pub(super) fn states(lang: Language, parts: &[Part]) -> String {
    let mut text = format!("{}\n", lang.of("Part by part", "Teil für Teil"));
    for part in parts {
        let line = format!(
            "  {:<26}{:<22}{}",
            name(lang, &part.name),
            state(lang, part.state),
            part.files.join(" ")
        );
        text.push_str(&safe::short(line.trim_end(), 400));
        text.push('\n');
    }
    text
}

fn conclusion(lang: Language, conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Holds => lang.of("THE CONTAINER HOLDS", "DER CONTAINER HÄLT DER PRÜFUNG STAND"),
        Conclusion::DoesNotHold => {
            lang.of("THE CONTAINER DOES NOT HOLD", "DER CONTAINER HÄLT DER PRÜFUNG NICHT STAND")
        }
        Conclusion::CannotTell => lang.of(
            "IT CANNOT BE TOLD WHETHER THE CONTAINER HOLDS",
            "ES IST NICHT FESTSTELLBAR, OB DER CONTAINER DER PRÜFUNG STANDHÄLT",
        ),
    }
}

/// What became of a part, in words.
fn state(lang: Language, state: PartState) -> &'static str {
    match state {
        PartState::Verified => lang.of("verified", "geprüft"),
        PartState::ExportersWord => lang.of("exporter's word", "Wort des Ausstellers"),
        PartState::Erased => lang.of("erased", "gelöscht"),
        PartState::NotKept => lang.of("not kept", "nicht aufbewahrt"),
        PartState::Absent => lang.of("absent", "nicht enthalten"),
        PartState::Mismatch => lang.of("MISMATCH", "ABWEICHUNG"),
        PartState::CannotTell => lang.of("cannot tell", "nicht feststellbar"),
    }
}

fn name(lang: Language, name: &PartName) -> String {
    let direction = |direction| match direction {
        Direction::Response => lang.of("response", "Antwort"),
        _ => lang.of("request", "Anfrage"),
    };
    let message = lang.of("message", "Nachricht");
    match name {
        PartName::Seal => lang.of("the exporter's seal", "Siegel des Ausstellers").into(),
        PartName::Timestamp => lang.of("timestamp of the seal", "Zeitstempel des Siegels").into(),
        PartName::ArchiveTimestamp(number) => {
            format!("{} {number}", lang.of("archive timestamp", "Archivzeitstempel"))
        }
        PartName::Manifest => lang.of("list of files", "Liste der Dateien").into(),
        PartName::File(file) => file.clone(),
        PartName::Proof => lang.of("proof", "Beweisdatei").into(),
        PartName::Messages(way, first, last) if first == last => {
            format!("{}, {message} {first}", direction(*way))
        }
        PartName::Messages(way, first, last) => format!("{}, {message} {first}–{last}", direction(*way)),
        PartName::NoMessages(way) => direction(*way).into(),
        PartName::CallerContext => lang.of("caller's declaration", "Angaben des Aufrufers").into(),
    }
}

fn not_qualified(lang: Language) -> &'static str {
    lang.of(
        "The seal is the exporter's. It is not a qualified electronic seal (eIDAS Art. 3 No. 27).",
        "Das Siegel ist das des Ausstellers. Es ist kein qualifiziertes elektronisches Siegel (Art. 3 Nr. 27 eIDAS-VO).",
    )
}

/// The README of a container.
pub(super) fn readme(exchange: &ExchangeId, exporter: &SecurityServerCertificate) -> String {
    let (server, member) = (&exporter.server, &exporter.member);
    let text = format!(
        "BEWEISDATEI IM CONTAINER (ASiC-E)\n\
         \n\
         Austausch   {exchange}\n\
         Aussteller  Sicherheitsserver {server}, für {member}\n\
         \n\
         Zwei Dinge sind hier zu prüfen, mit zwei Arten von Programmen:\n\
         \n\
         1. Das Siegel (META-INF/signature001.p7s). Es ist das des Ausstellers und sagt: Dieser Sicherheitsserver hat diese\n\
            Dateien zu dieser Zeit herausgegeben, und sie sind unverändert. Jedes Prüfprogramm für elektronische Signaturen\n\
            nach eIDAS prüft es, wenn ihm Zertifizierungsstelle und Zeitstempeldienst der Instanz als vertrauenswürdig\n\
            genannt werden. {de}\n\
            Archivzeitstempel (META-INF/timestamp001.tst und folgende) halten es prüfbar, wenn die Zertifikate abgelaufen\n\
            sind; erneuert werden sie, bevor das Zertifikat des letzten Zeitstempeldienstes endet.\n\
         2. Die Beweisdatei (exchange.proof). Sie sagt, wer wen wonach fragte, wann, auf welcher Rechtsgrundlage und was\n\
            geantwortet wurde: mit den Signaturen beider Seiten, dem Platz im Protokoll, dem Prüfstand mit Zeitstempel und\n\
            den Gegenzeichnungen der Zeugen. Beides zusammen prüft, ohne Netz:\n\
         \n\
                trave-verify DATEI.asice --anchor ANKER --lang de\n\
         \n\
            Den Konfigurationsanker (ANKER) erhalten Sie von der Instanz, nicht vom Überbringer dieser Datei.\n\
         \n\
         report.de.txt   was die Prüfung beim Aussteller ergab; es ist dessen Wort\n\
         parts.txt       welcher Teil geprüft, gelöscht, nicht aufbewahrt oder nicht enthalten ist\n\
         request, response   Anfrage und Antwort, soweit sie aufbewahrt sind\n\
         Gelöschte Inhalte fehlen zu Recht: Dass und wann gelöscht wurde, ist protokolliert.\n\
         \n\
         \n\
         PROOF IN A CONTAINER (ASiC-E)\n\
         \n\
         Exchange  {exchange}\n\
         Exporter  security server {server}, for {member}\n\
         \n\
         Two things are to be verified here, by two kinds of programs:\n\
         \n\
         1. The seal (META-INF/signature001.p7s). It is the exporter's, and says: this security server gave out these files at\n\
            this time, and they are unaltered. Any validator of eIDAS signatures checks it when told to trust the instance's\n\
            certification authority and timestamping authority. {en}\n\
            Archive timestamps (META-INF/timestamp001.tst and following) keep it provable when the certificates have ended;\n\
            they are renewed before the certificate of the last timestamping authority ends.\n\
         2. The proof (exchange.proof). It says who asked whom for what, when, on which legal basis, and what was answered: with\n\
            the signatures of both sides, the place in the log, the checkpoint with its timestamp, and the witnesses'\n\
            cosignatures. Both together are checked, without a network, by\n\
         \n\
                trave-verify FILE.asice --anchor ANCHOR\n\
         \n\
            The configuration anchor (ANCHOR) comes from the instance, not from whoever handed over this file.\n\
         \n\
         report.en.txt   what the exporter's own verification found; it is the exporter's word\n\
         parts.txt       which part is verified, erased, not kept or absent\n\
         request, response   what was asked and answered, as far as it is kept\n\
         Erased contents are missing rightly: that and when they were erased is recorded.\n",
        de = not_qualified(Language::De),
        en = not_qualified(Language::En),
    );
    text
}
