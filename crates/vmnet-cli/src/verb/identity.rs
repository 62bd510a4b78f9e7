//! `vmnet identity`.

use super::table::{Table, or_none};
use super::{VerbError, each, keeping, show};
use crate::args::identity::{Forget, IdentityVerb, List};
use crate::span;
use openvmnet::client::Client;
use openvmnet::service::{Identities, Identity};

pub(crate) fn run(verb: &IdentityVerb) -> Result<(), VerbError> {
    match verb {
        IdentityVerb::List(asked) => list(asked),
        IdentityVerb::Forget(asked) => forget(asked),
    }
}

fn list(list: &List) -> Result<(), VerbError> {
    let identities = match keeping()? {
        Some(mut client) => client.list_identities()?,
        None => Identities {
            identities: Vec::new(),
        },
    };
    show(list.json, &identities, || {
        table(&identities.identities, span::now())
    })
}

fn forget(forget: &Forget) -> Result<(), VerbError> {
    let mut client = Client::connect()?;
    each(&forget.ids, |id| client.forget_identity(id))
}

fn table(identities: &[Identity], now: u64) -> String {
    let mut table = Table::new(["ID", "MAC", "INTERFACE", "LAST USED", "CREATED"]);
    for identity in identities {
        table.row([
            identity.id.clone(),
            identity.mac.clone(),
            or_none(identity.interface),
            span::seen_from(now, identity.last_used),
            span::seen_from(now, identity.created),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;

    #[test]
    fn identities_as_a_table() {
        let identities = [examples::identity(), examples::bare_identity()];
        insta::assert_snapshot!(table(&identities, examples::NOW), @r"
        ID                                    MAC                INTERFACE  LAST USED  CREATED
        0b1d9f6e-2c1a-4b7e-9f0a-3d1c5e7f9a2b  52:54:00:12:34:56  7          1m5s ago   30d ago
        0b1d9f6e-2c1a-4b7e-9f0a-3d1c5e7f9a2b  52:54:00:12:34:56  -          1m5s ago   30d ago
        ");
    }
}
