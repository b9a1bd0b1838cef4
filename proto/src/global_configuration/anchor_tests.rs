use super::*;
use crate::global_configuration::testing::{anchor_of, by, configuration_key};

const EXAMPLE: &str = "trave configuration anchor v1
instance NORD
number 1
threshold 2
key cosigner-mv 9c1185a5c5e9fc54612808977ee8f548b2258d31ddfbdd1ae2b8d8f27a3b7a15
key registry-sh 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29
";

#[test]
fn the_documented_example_is_an_anchor() {
    let anchor = Anchor::parse(EXAMPLE.as_bytes()).unwrap();
    assert_eq!((anchor.instance(), anchor.number(), anchor.threshold()), ("NORD", 1, 2));
    assert_eq!(anchor.keys()[1].name, "registry-sh");
    assert_eq!(anchor.bytes(), EXAMPLE.as_bytes());
    assert_eq!(anchor.digest(), Digest::of(EXAMPLE.as_bytes()));
}

#[test]
fn any_other_spelling_is_refused() {
    let swapped: Vec<_> = EXAMPLE.lines().collect();
    let swapped = [&swapped[..4], &[swapped[5], swapped[4]]].concat().join("\n") + "\n";
    let one_key = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    let other_key = "9c1185a5c5e9fc54612808977ee8f548b2258d31ddfbdd1ae2b8d8f27a3b7a15";
    for (why, text) in [
        ("CRLF", EXAMPLE.replace('\n', "\r\n")),
        ("no last line feed", EXAMPLE.trim_end().to_owned()),
        ("blank line", EXAMPLE.to_owned() + "\n"),
        ("other order", swapped),
        ("upper case", EXAMPLE.replace("9c1185a5", "9C1185A5")),
        ("leading zero", EXAMPLE.replace("threshold 2", "threshold 02")),
        ("plus sign", EXAMPLE.replace("threshold 2", "threshold +2")),
        ("threshold 0", EXAMPLE.replace("threshold 2", "threshold 0")),
        ("threshold above keys", EXAMPLE.replace("threshold 2", "threshold 3")),
        ("number 0", EXAMPLE.replace("number 1", "number 0")),
        ("no instance", EXAMPLE.replace("instance NORD\n", "")),
        ("instance with a slash", EXAMPLE.replace("NORD", "NO/RD")),
        ("name twice", EXAMPLE.replace("cosigner-mv", "registry-sh")),
        ("one key under two names", EXAMPLE.replace(other_key, one_key)),
        ("short key", EXAMPLE.replace("da29", "")),
        ("unknown line", EXAMPLE.to_owned() + "comment x\n"),
        ("too long", EXAMPLE.to_owned() + &"#".repeat(4096)),
    ] {
        assert!(matches!(Anchor::parse(text.as_bytes()), Err(AnchorError::Malformed { .. })), "{why}");
    }
}

#[test]
fn a_new_anchor_needs_the_thresholds_of_old_and_new() {
    let keys = [configuration_key(1), configuration_key(2), configuration_key(3), configuration_key(4)];
    let old = anchor_of(1, 2, &[("a", &keys[0]), ("b", &keys[1])]);
    let new = anchor_of(2, 2, &[("b", &keys[2]), ("c", &keys[3])]);
    let signed = |signatures| SignedAnchor { anchor: new.bytes().clone(), signatures };
    let (a, old_b) = (sign_anchor(&new, "a", by(&keys[0])), sign_anchor(&new, "b", by(&keys[1])));
    let (new_b, c) = (sign_anchor(&new, "b", by(&keys[2])), sign_anchor(&new, "c", by(&keys[3])));

    // Both anchors know a key "b", and a name signs once: these two can only follow each other under other names.
    let refused = old.verify_successor(&signed(vec![a.clone(), old_b.clone(), new_b, c.clone()]));
    assert_eq!(refused, Err(AnchorError::Signature { key: "b".into() }));
    let refused = old.verify_successor(&signed(vec![a.clone(), old_b.clone(), c.clone()]));
    assert_eq!(refused, Err(AnchorError::Threshold { whose: "new", needed: 2, found: 1 }));

    let new = anchor_of(2, 2, &[("b", &keys[1]), ("c", &keys[3])]);
    let sign = |name, key| sign_anchor(&new, name, by(key));
    let (a, b, c) = (sign("a", &keys[0]), sign("b", &keys[1]), sign("c", &keys[3]));
    let signed = |signatures: &[&KeySignature]| SignedAnchor {
        anchor: new.bytes().clone(),
        signatures: signatures.iter().copied().cloned().collect(),
    };
    assert_eq!(old.verify_successor(&signed(&[&a, &b, &c])).as_ref(), Ok(&new));
    assert_eq!(old.verify_chain(&[signed(&[&a, &b, &c])]).as_ref(), Ok(&new));
    let refused = old.verify_successor(&signed(&[&b, &c]));
    assert_eq!(refused, Err(AnchorError::Threshold { whose: "old", needed: 2, found: 1 }));
    let forged = KeySignature { key: "a".into(), value: b.value.clone() };
    let refused = old.verify_successor(&signed(&[&forged, &b, &c]));
    assert_eq!(refused, Err(AnchorError::Signature { key: "a".into() }));
}

#[test]
fn an_anchor_follows_only_the_one_before_it_in_its_instance() {
    let key = configuration_key(1);
    let old = anchor_of(2, 1, &[("a", &key)]);
    let other = configuration_key(2);
    let elsewhere = AnchorKey { name: "a".into(), public_key: *old.key("a").unwrap() };
    for new in [
        anchor_of(2, 1, &[("a", &key), ("b", &other)]),
        anchor_of(1, 1, &[("a", &key)]),
        anchor_of(4, 1, &[("a", &key)]),
        Anchor::new("SUED", 3, 1, vec![elsewhere]).unwrap(),
    ] {
        let signatures = vec![sign_anchor(&new, "a", by(&key))];
        let signed = SignedAnchor { anchor: new.bytes().clone(), signatures };
        assert!(matches!(old.verify_successor(&signed), Err(AnchorError::DoesNotFollow { .. })));
    }
}
