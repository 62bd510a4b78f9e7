//! Tables of the file, the version of the format, and the steps from one version to the next.

use redb::{
    Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use super::contents::{Change, Contents};
use super::fault::Fault;
use super::identity::Identity;
use super::{lease, network};

/// The version of the format that this program writes. Raise it when an earlier program would read the rows wrongly, and add
/// the step to [`STEPS`]. A new field that may be missing is no new version.
pub(super) const VERSION: u64 = 2;

/// How a file of version `n` becomes one of version `n + 1`: the entry at index `n - 1`.
const STEPS: &[Step] = &[leases_of_both_families];

pub(super) type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// Version 2: leases may be of IPv6 addresses, which earlier programs cannot read. Rows of version 1 are as they were.
fn leases_of_both_families(_: &WriteTransaction) -> Result<(), redb::Error> {
    Ok(())
}

const SCHEMA: TableDefinition<'_, &str, u64> = TableDefinition::new("schema");

/// The tables, by what a row of them is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    /// Interface id: its MAC.
    Identity,
    /// Network id: its description.
    Network,
    /// Network id and name of the reservation.
    Reservation,
    /// Network id and name of the forward.
    Forward,
    /// Network id and address, of either family.
    Lease,
}

impl Table {
    pub(super) const ALL: [Self; 5] = [
        Self::Identity,
        Self::Network,
        Self::Reservation,
        Self::Forward,
        Self::Lease,
    ];

    pub(super) fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Self::Identity => "identity",
            Self::Network => "network",
            Self::Reservation => "reservation",
            Self::Forward => "forward",
            Self::Lease => "lease",
        })
    }

    /// Can this row be read?
    fn reads(self, key: &[u8], value: &[u8]) -> bool {
        match self {
            Self::Identity => Identity::of_row(self, key, value).is_some(),
            Self::Network => network::of_row(key, value).is_some(),
            Self::Reservation | Self::Forward => network::part_of_row(key, value).is_some(),
            Self::Lease => lease::of_row(key, value).is_some(),
        }
    }
}

/// Writes the version and all tables of a new file.
pub(super) fn found(
    transaction: &WriteTransaction,
    contents: &Contents,
) -> Result<(), redb::Error> {
    transaction.open_table(SCHEMA)?.insert("version", VERSION)?;
    for table in Table::ALL {
        let mut rows = transaction.open_table(table.definition())?;
        for (_, key, value) in contents.rows().filter(|(of, ..)| *of == table) {
            rows.insert(key, value)?;
        }
    }
    Ok(())
}

/// Writes changes.
pub(super) fn write(transaction: &WriteTransaction, changes: &[Change]) -> Result<(), redb::Error> {
    for table in Table::ALL {
        let mut rows = None;
        for change in changes {
            let of = match change {
                Change::Put { table, .. } | Change::Remove { table, .. } => *table,
            };
            if of != table {
                continue;
            }
            let rows = match &mut rows {
                Some(rows) => rows,
                none => none.insert(transaction.open_table(table.definition())?),
            };
            match change {
                Change::Put { key, value, .. } => {
                    _ = rows.insert(key.as_slice(), value.as_slice())?
                }
                Change::Remove { key, .. } => _ = rows.remove(key.as_slice())?,
            }
        }
    }
    Ok(())
}

/// Brings an older file to this version; refuses a newer one.
pub(super) fn settle(database: &Database) -> Result<(), Fault> {
    settle_to(database, VERSION, STEPS)
}

pub(super) fn settle_to(database: &Database, version: u64, steps: &[Step]) -> Result<(), Fault> {
    let found = version_of(database)?;
    if found == version {
        return Ok(());
    }
    if found > version {
        return Err(Fault::Newer { found });
    }
    let missing = usize::try_from(found)
        .ok()
        .and_then(|found| steps.get(found.checked_sub(1)?..));
    let missing =
        missing.ok_or_else(|| Fault::Damaged(format!("it has format {found}, which never was")))?;
    super::database::transact(database, |transaction| {
        missing.iter().try_for_each(|step| step(transaction))?;
        transaction.open_table(SCHEMA)?.insert("version", version)?;
        Ok(())
    })?;
    tracing::info!(
        from = found,
        to = version,
        "the stored state was brought to this version's format"
    );
    Ok(())
}

fn version_of(database: &Database) -> Result<u64, Fault> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(SCHEMA) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => {
            return Err(Fault::Damaged("it is no store of vmnet".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let version = table.get("version")?.map(|row| row.value());
    version.ok_or_else(|| Fault::Damaged("it does not say which format it has".to_owned()))
}

/// Reads every row.
pub(super) fn load(database: &Database) -> Result<Contents, Fault> {
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    for table in Table::ALL {
        let rows = transaction.open_table(table.definition())?;
        for row in rows.iter()? {
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            if !table.reads(key, value) {
                return Err(Fault::Damaged(format!(
                    "a row of the table {table:?} cannot be read"
                )));
            }
            let mac = Identity::of_row(table, key, value).map(|(_, identity)| identity.mac);
            if let Some(mac) = mac.filter(|mac| contents.owner(*mac).is_some()) {
                return Err(Fault::Damaged(format!(
                    "two interfaces have the address {mac}"
                )));
            }
            contents.apply(Change::Put {
                table,
                key: key.to_vec(),
                value: value.to_vec(),
            });
        }
    }
    Ok(contents)
}
