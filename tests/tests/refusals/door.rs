//! What is refused at the agency's door: nothing is signed, nothing is sent.

use super::*;

/// A row of the door: the agency's server alone sees it.
fn at_door(
    refused: &'static str,
    (door, question): (usize, fn(Question) -> Question),
    caller: (i32, &'static str, &'static str, &'static str),
    sh: &'static [&'static str],
) -> Row {
    Row { refused, stage: Stage::Door, act: Act::Ask(door, question), caller, register: 0, sh, mv: &[] }
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        at_door(
            "a header that claims another subsystem",
            (0, |q| q.header("x-road-client", OTHER_CLIENT)),
            (7, "invalid_client_identifier", "client", "no"),
            &["refused invalid_client_identifier by client"],
        ),
        at_door(
            "a client that is no identifier",
            (0, |q| q.header("x-road-client", "Lübeck")),
            (3, "invalid_message", "client", "no"),
            &["refused invalid_message by client"],
        ),
        at_door(
            "a doubled header",
            (0, |q| q.header("trave-purpose", OTHER_PURPOSE)),
            (3, "invalid_message", "client", "no"),
            &["refused invalid_message by client"],
        ),
        at_door(
            "a member that the configuration does not know",
            (2, |q| q),
            (5, "unknown_member", "client_server", "no"),
            &["refused unknown_member by client_server"],
        ),
        at_door(
            "a service that the catalogue does not know",
            (0, |q| q.set("x-road-service", "NORD/MV/gewerberegister/register/nichts")),
            (5, "unknown_service", "client_server", "no"),
            &["refused unknown_service by client_server"],
        ),
        at_door(
            "no service",
            (0, |q| q.without("x-road-service")),
            (5, "unknown_service", "client", "no"),
            &["refused unknown_service by client"],
        ),
        at_door(
            "a method that the catalogue does not know",
            (0, |q| q.method("/test.v1.Loeschung/Alles")),
            (12, "unknown_method", "client_server", "no"),
            &["refused unknown_method by client_server"],
        ),
        at_door(
            "a path that is no method",
            (0, |q| q.method("/test.v1.Auskunft/Frage/../Alles")),
            (12, "unknown_method", "client", "no"),
            &["refused unknown_method by client"],
        ),
        at_door(
            "a purpose that the catalogue does not know",
            (0, |q| q.set("trave-purpose", "neugier")),
            (3, "unknown_purpose", "client_server", "no"),
            &["refused unknown_purpose by client_server"],
        ),
        at_door(
            "a purpose that is none of the service",
            (0, |q| q.set("trave-purpose", "statistik")),
            (3, "unknown_purpose", "client_server", "no"),
            &["refused unknown_purpose by client_server"],
        ),
        at_door(
            "no purpose",
            (0, |q| q.without("trave-purpose")),
            (3, "unknown_purpose", "client", "no"),
            &["refused unknown_purpose by client"],
        ),
        at_door(
            "a legal basis that the catalogue does not know",
            (0, |q| q.set("trave-legal-basis", "Faustrecht")),
            (3, "unknown_legal_basis", "client_server", "no"),
            &["refused unknown_legal_basis by client_server"],
        ),
        at_door(
            "a deadline that is none",
            (0, |q| q.header("grpc-timeout", "bald")),
            (3, "invalid_message", "client", "no"),
            &["refused invalid_message by client"],
        ),
        at_door(
            "oversize: what goes with a message but is no content",
            (0, |q| q.header("x-road-userid", &"x".repeat(2000))),
            (3, "invalid_message", "client", "no"),
            &["refused invalid_message by client"],
        ),
    ]
}
