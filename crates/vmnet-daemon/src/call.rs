//! What a client's message asks for, and what to tell one that asks for what is not there.
//!
//! `zlink` ends a connection whose message it cannot read. A client that spelt a parameter wrong is better told so
//! (`org.varlink.service.InvalidParameter`): so each message is read as it came, looked at, and given on only if it fits.

use openvmnet::service::{
    ForwardRule, INTERFACE, InterfaceOptions, NetworkConfiguration, Reservation,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use zlink::varlink_service::Error;

/// A message that is a call, whatever it asks for.
#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    method: String,
    #[serde(default)]
    parameters: Option<Value>,
}

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    Flag,
    Configuration,
    Options,
    Rule,
    Reservation,
}

/// A parameter: its name, what it is, and whether it may be left out.
type Parameter = (&'static str, Form, bool);

const REQUIRED: bool = false;
const OPTIONAL: bool = true;
const NETWORK: Parameter = ("network", Form::Text, REQUIRED);
const ANY_NETWORK: Parameter = ("network", Form::Text, OPTIONAL);

/// The calls of our interface, and what each takes.
const CALLS: [(&str, &[Parameter]); 22] = [
    ("Status", &[]),
    (
        "CreateNetwork",
        &[("configuration", Form::Configuration, REQUIRED)],
    ),
    ("DeleteNetwork", &[NETWORK, ("force", Form::Flag, REQUIRED)]),
    (
        "OpenNetwork",
        &[
            ANY_NETWORK,
            ("configuration", Form::Configuration, OPTIONAL),
        ],
    ),
    ("CloseNetwork", &[NETWORK]),
    ("ListNetworks", &[ANY_NETWORK]),
    ("GetCounters", &[NETWORK]),
    (
        "StartInterface",
        &[NETWORK, ("options", Form::Options, REQUIRED)],
    ),
    ("OpenTap", &[NETWORK, ("queues", Form::Number, OPTIONAL)]),
    ("StopInterface", &[("interface", Form::Number, REQUIRED)]),
    ("ListInterfaces", &[ANY_NETWORK]),
    ("ListSharedInterfaces", &[]),
    (
        "AddForward",
        &[
            NETWORK,
            ("interface", Form::Number, OPTIONAL),
            ("rule", Form::Rule, REQUIRED),
        ],
    ),
    ("RemoveForward", &[("forward", Form::Number, REQUIRED)]),
    ("ListForwards", &[ANY_NETWORK]),
    ("ListLeases", &[ANY_NETWORK]),
    (
        "ReleaseLease",
        &[NETWORK, ("address", Form::Text, REQUIRED)],
    ),
    (
        "ReserveLease",
        &[NETWORK, ("reservation", Form::Reservation, REQUIRED)],
    ),
    (
        "UnreserveLease",
        &[NETWORK, ("address", Form::Text, REQUIRED)],
    ),
    ("ListReservations", &[ANY_NETWORK]),
    ("ListIdentities", &[]),
    ("ForgetIdentity", &[("id", Form::Text, REQUIRED)]),
];

/// The calls that every varlink service has.
const VARLINK: &str = "org.varlink.service";
const VARLINK_CALLS: [(&str, &[Parameter]); 2] = [
    ("GetInfo", &[]),
    (
        "GetInterfaceDescription",
        &[("interface", Form::Text, REQUIRED)],
    ),
];

impl Asked {
    /// The whole call as `zlink` reads it.
    ///
    /// # Errors
    /// There is no such call, or it takes something else.
    pub(crate) fn checked(&self) -> Result<Value, Error<'static>> {
        let none = Map::new();
        let parameters = match &self.parameters {
            None | Some(Value::Null) => &none,
            Some(Value::Object(parameters)) => parameters,
            Some(_) => return Err(wrong("parameters: not an object")),
        };
        let known = known(&self.method)?;
        for (name, form, optional) in known {
            match parameters.get(*name) {
                None | Some(Value::Null) if *optional => {}
                None => return Err(wrong(*name)),
                Some(value) => form.check(name, value)?,
            }
        }
        let strange = |name: &&String| known.iter().all(|(known, ..)| known != name);
        if let Some(name) = parameters.keys().find(strange) {
            return Err(wrong(name.clone()));
        }
        let mut call = Map::new();
        call.insert("method".to_owned(), Value::String(self.method.clone()));
        if !parameters.is_empty() {
            call.insert("parameters".to_owned(), Value::Object(parameters.clone()));
        }
        Ok(Value::Object(call))
    }
}

/// What a call takes.
fn known(method: &str) -> Result<&'static [Parameter], Error<'static>> {
    let (interface, name) = method.rsplit_once('.').unwrap_or(("", method));
    let calls: &[(&str, &'static [Parameter])] = match interface {
        INTERFACE => &CALLS,
        VARLINK => &VARLINK_CALLS,
        _ => {
            return Err(Error::InterfaceNotFound {
                interface: Cow::Owned(interface.to_owned()),
            });
        }
    };
    calls
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, parameters)| *parameters)
        .ok_or_else(|| Error::MethodNotFound {
            method: Cow::Owned(method.to_owned()),
        })
}

fn wrong(parameter: impl Into<Cow<'static, str>>) -> Error<'static> {
    Error::InvalidParameter {
        parameter: parameter.into(),
    }
}

impl Form {
    /// Refuses what is of another form, and says what of it.
    fn check(self, name: &str, value: &Value) -> Result<(), Error<'static>> {
        let inner = match self {
            Self::Text if value.is_string() => return Ok(()),
            Self::Number if value.is_u64() => return Ok(()),
            Self::Flag if value.is_boolean() => return Ok(()),
            Self::Text | Self::Number | Self::Flag => return Err(wrong(name.to_owned())),
            Self::Configuration => NetworkConfiguration::deserialize(value).err(),
            Self::Options => InterfaceOptions::deserialize(value).err(),
            Self::Rule => ForwardRule::deserialize(value).err(),
            Self::Reservation => Reservation::deserialize(value).err(),
        };
        match inner {
            None => Ok(()),
            Some(error) => Err(wrong(format!("{name}: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(message: Value) -> Result<Value, String> {
        let asked: Asked = serde_json::from_value(message).unwrap();
        asked.checked().map_err(|error| match error {
            Error::InterfaceNotFound { interface } => format!("no interface {interface}"),
            Error::MethodNotFound { method } => format!("no method {method}"),
            Error::InvalidParameter { parameter } => parameter.into_owned(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_call_that_fits_is_given_on() {
        for message in [
            json!({"method": "org.openvmnet.Service.Status"}),
            json!({"method": "org.varlink.service.GetInfo"}),
            json!({"method": "org.openvmnet.Service.StopInterface", "parameters": {"interface": 3}}),
            json!({"method": "org.openvmnet.Service.ListLeases", "parameters": {"network": null}}),
        ] {
            assert_eq!(answer(message.clone()), Ok(message));
        }
        let empty = json!({"method": "org.openvmnet.Service.Status", "parameters": {}});
        assert!(answer(empty).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let call = |name: &str, parameters: Value| json!({"method": format!("{INTERFACE}.{name}"), "parameters": parameters});
        for (message, named) in [
            (json!({"method": "Status"}), "no interface "),
            (
                json!({"method": "org.example.Status"}),
                "no interface org.example",
            ),
            (
                json!({"method": "org.openvmnet.Service.status"}),
                "no method org.openvmnet.Service.status",
            ),
            (
                json!({"method": "org.varlink.service.Get"}),
                "no method org.varlink.service.Get",
            ),
            (call("Status", json!([])), "parameters: not an object"),
            (call("Status", json!({"x": 1})), "x"),
            (call("ListLeases", json!({"netwrk": "a"})), "netwrk"),
            (call("ListLeases", json!({"network": 3})), "network"),
            (call("CloseNetwork", json!({"network": null})), "network"),
            (call("DeleteNetwork", json!({"network": "a"})), "force"),
            (
                call("DeleteNetwork", json!({"network": "a", "force": 1})),
                "force",
            ),
            (call("StopInterface", json!({"interface": -1})), "interface"),
            (
                call("StopInterface", json!({"interface": "1"})),
                "interface",
            ),
        ] {
            assert_eq!(answer(message.clone()), Err(named.to_owned()), "{message}");
        }
        let mtuu = json!({"configuration": {"mode": "shared", "mtuu": 3}});
        let said = answer(call("CreateNetwork", mtuu)).unwrap_err();
        assert!(
            said.starts_with("configuration: unknown field `mtuu`"),
            "{said}"
        );
        let none = json!({"network": "a", "options": {}});
        let said = answer(call("StartInterface", none)).unwrap_err();
        assert!(said.contains("missing field `kind`"), "{said}");
    }
}
