//! What is in a store that holds nothing.

use redb::Database;

use super::error::Result;
use super::schema::{self, META, SETTLED, meta};

/// Creates all tables, so that no reader has to ask whether one is there.
pub(super) fn create(tables: &Database) -> Result<()> {
    let mut transaction = tables.begin_write()?;
    transaction.set_quick_repair(true);
    schema::create_tables(&transaction)?;
    transaction.open_table(SETTLED)?;
    let version = schema::STORE_VERSION.to_string();
    let mut counters = Vec::new();
    schema::encode(&mut counters, &schema::Counters::default())?;
    {
        let mut meta = transaction.open_table(META.definition)?;
        meta.insert(meta::VERSION, version.as_bytes())?;
        meta.insert(meta::COUNTERS, counters.as_slice())?;
    }
    Ok(transaction.commit()?)
}
