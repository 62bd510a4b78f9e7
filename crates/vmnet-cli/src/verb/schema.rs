//! `docs/json.md` says what is printed: each field of each object, its type, and when it is not there.

use super::examples;
use super::forward::Forwards;
use super::interface::Interfaces;
use super::lease::Addresses;
use super::status::Overview;
use openvmnet::service::{
    BridgeMethod, Identities, Kind, LeaseState, Lifetime, Mode, NetworkConfiguration, Networks,
    Protocol, SharedInterfaces, SharedKind,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../../../docs/json.md");

/// Field and type of each object, as the document has them.
fn documented() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut objects: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut object = None;
    for line in DOCUMENT.lines() {
        if line.starts_with('#') {
            object = line
                .strip_prefix("### `")
                .and_then(|rest| rest.strip_suffix('`'))
                .map(str::to_owned);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let (Some(object), [_, field, kind, meaning, _]) = (&object, cells.as_slice())
            && let Some(field) = field.strip_prefix('`').and_then(|f| f.strip_suffix('`'))
        {
            assert!(!meaning.is_empty(), "{object}.{field} means nothing");
            let fields = objects.entry(object.clone()).or_default();
            let twice = fields.insert(field.to_owned(), (*kind).to_owned());
            assert!(twice.is_none(), "{object}.{field} twice");
        }
    }
    objects
}

/// The same of an object with everything in it and one with as little as can be.
fn printed(full: &impl Serialize, bare: &impl Serialize) -> BTreeMap<String, String> {
    let fields = |value| match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    };
    let full = fields(serde_json::to_value(full).unwrap());
    let bare = fields(serde_json::to_value(bare).unwrap());
    for field in bare.keys() {
        assert!(full.contains_key(field), "the full example lacks {field}");
    }
    full.into_iter()
        .map(|(field, value)| {
            let kind = match value {
                Value::Null => panic!("the full example has no {field}"),
                Value::Bool(_) => "boolean",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            let kind = match bare.get(&field) {
                None => format!("{kind}, optional"),
                Some(Value::Null) => format!("{kind} or null"),
                Some(_) => kind.to_owned(),
            };
            (field, kind)
        })
        .collect()
}

/// `array of Network, optional` is `array, optional`: what is in it has a table of its own.
fn without_elements(kind: &str) -> String {
    for end in [", optional", " or null"] {
        if let Some(kind) = kind.strip_suffix(end) {
            return format!("{}{end}", without_elements(kind));
        }
    }
    kind.split(' ').take(1).collect()
}

/// Field and type of each object, as it is printed.
fn objects() -> BTreeMap<&'static str, BTreeMap<String, String>> {
    use examples::*;
    let networks = Networks {
        networks: vec![network()],
    };
    let interfaces = Interfaces {
        interfaces: vec![scoped(interface())],
    };
    let shared = SharedInterfaces {
        interfaces: vec![shared_interface()],
    };
    let identities = Identities {
        identities: vec![identity()],
    };
    let forwards = Forwards {
        forwards: vec![scoped(forward())],
    };
    let (rule, bare_rule) = (forward().rule, bare_forward().rule);
    let least = NetworkConfiguration::new(Mode::Shared);
    let diagnosis = crate::doctor::example();
    let (well, ill) = (&diagnosis.findings[0], &diagnosis.findings[1]);
    BTreeMap::from([
        ("Diagnosis", printed(&diagnosis, &diagnosis)),
        ("Finding", printed(ill, well)),
        ("Networks", printed(&networks, &networks)),
        ("Network", printed(&network(), &bare_network())),
        ("ShownNetwork", only_counters()),
        ("NetworkConfiguration", printed(&configuration(), &least)),
        ("Interfaces", printed(&interfaces, &interfaces)),
        (
            "Interface",
            printed(&scoped(interface()), &scoped(bare_interface())),
        ),
        ("SharedInterfaces", printed(&shared, &shared)),
        (
            "SharedInterface",
            printed(&shared_interface(), &bare_shared_interface()),
        ),
        (
            "MethodState",
            printed(&method_state(), &bare_method_state()),
        ),
        ("Identities", printed(&identities, &identities)),
        ("Identity", printed(&identity(), &bare_identity())),
        ("Forwards", printed(&forwards, &forwards)),
        (
            "Forward",
            printed(&scoped(forward()), &scoped(bare_forward())),
        ),
        ("ForwardRule", printed(&rule, &bare_rule)),
        ("Guest", printed(&guest(), &nobody())),
        ("Addresses", printed(&addresses(), &Addresses::default())),
        ("Lease", printed(&scoped(lease()), &scoped(bare_lease()))),
        (
            "Reserved",
            printed(&scoped(reserved()), &scoped(bare_reserved())),
        ),
        ("Reservation", printed(&reservation(), &bare_reservation())),
        ("Overview", printed(&overview(), &Overview::default())),
        ("Closeup", printed(&closeup(), &closeup())),
        ("Status", printed(&status(), &bare_status())),
    ])
}

#[test]
fn the_document_has_each_field_of_each_object_and_no_other() {
    let mut documented = documented();
    for (object, fields) in objects() {
        let mut said = documented
            .remove(object)
            .unwrap_or_else(|| panic!("docs/json.md has no table of `{object}`"));
        for kind in said.values_mut() {
            *kind = without_elements(kind);
        }
        assert_eq!(said, fields, "{object}");
    }
    assert!(documented.is_empty(), "not printed: {documented:?}");
}

/// What a shown network has besides those of a network.
fn only_counters() -> BTreeMap<String, String> {
    let mut fields = printed(&examples::shown(), &examples::bare_shown());
    for field in printed(&examples::network(), &examples::bare_network()).keys() {
        assert!(fields.remove(field).is_some(), "{field}");
    }
    fields
}

#[test]
fn the_document_has_the_words_for_each_choice() {
    let words = [
        word(&Mode::Host),
        word(&Mode::Shared),
        word(&Mode::Bridged),
        word(&Lifetime::Kept),
        word(&Lifetime::Configured),
        word(&Lifetime::Held),
        word(&Protocol::Tcp),
        word(&Protocol::Udp),
        word(&LeaseState::Bound),
        word(&LeaseState::Expired),
        word(&LeaseState::Released),
        word(&Kind::Tap),
        word(&Kind::BridgeTap),
        word(&Kind::Stream),
        word(&Kind::StreamListener),
        word(&Kind::Dgram),
        word(&Kind::DgramListener),
        word(&Kind::VhostUser),
        word(&Kind::VhostUserClient),
        word(&Kind::VhostUserConnected),
        word(&SharedKind::Ethernet),
        word(&SharedKind::Vlan),
        word(&SharedKind::Bond),
        word(&SharedKind::Bridge),
        word(&SharedKind::Wifi),
        word(&BridgeMethod::Bridge),
        word(&BridgeMethod::Macvtap),
        word(&BridgeMethod::Packet),
    ];
    for word in words {
        assert!(DOCUMENT.contains(&format!("`{word}`")), "{word}");
    }
}

/// What JSON calls a choice.
fn word(choice: &impl Serialize) -> String {
    let value = serde_json::to_value(choice).unwrap();
    value.as_str().unwrap().to_owned()
}
