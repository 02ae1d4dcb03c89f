//! What was counted of agents: in rows of a few numbers, since each commit changes them, beside what
//! changes seldom.

use rusqlite::{Connection, Transaction, params};
use valtronics_protocol::time::UnixMillis;

use super::{StoreError, events::parse};
use crate::tally::{AgentChange, AgentId, AgentKey, AgentKind, AgentRecord, Tally};

/// Writes down what is known of an agent, or deletes it.
pub(super) fn write(transaction: &Transaction<'_>, change: &AgentChange) -> Result<(), StoreError> {
    let AgentChange { id, key, record, is_new } = change;
    let id = id.0.cast_signed();
    let Some(record) = record else {
        for sql in ["DELETE FROM agents WHERE id = ?1", "DELETE FROM agent_sums WHERE id = ?1"] {
            transaction.prepare_cached(sql)?.execute([id])?;
        }
        return Ok(());
    };
    if *is_new {
        let json = serde_json::to_string(record).expect("a record has text keys only");
        let sql = "INSERT OR REPLACE INTO agents (id, sub, kind, name, json)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = params![id, &*key.sub, key.kind as u8, &*key.name, json];
        transaction.prepare_cached(sql)?.execute(row)?;
    }
    let AgentRecord { last_seen, tally, .. } = record;
    let Tally { received, stored, duplicated, expired, lost, .. } = tally;
    let Tally { events_received, events_duplicated, refused: _, .. } = tally;
    let sums = [received, stored, duplicated, expired, lost, events_received, events_duplicated];
    let [a, b, c, d, e, f, g] = sums.map(|sum| sum.cast_signed());
    let sql = "INSERT OR REPLACE INTO agent_sums VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let row = params![id, last_seen.0, a, b, c, d, e, f, g];
    transaction.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

/// Reads all agents, in the order of their ids.
pub(super) fn load(db: &Connection) -> Result<Vec<(AgentId, AgentKey, AgentRecord)>, StoreError> {
    let mut agents = Vec::new();
    let sql = "SELECT id, sub, kind, name, json, last_seen, received, stored, duplicated, expired,
               lost, events_received, events_duplicated
               FROM agents JOIN agent_sums USING (id) ORDER BY id";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let sum = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let kind = if row.get::<_, u8>(2)? == 0 { AgentKind::Gateway } else { AgentKind::Queue };
        let key = AgentKey { sub: row.get(1)?, kind, name: row.get(3)? };
        let written: AgentRecord = parse(&row.get::<_, String>(4)?)?;
        let tally = Tally {
            received: sum(6)?,
            stored: sum(7)?,
            duplicated: sum(8)?,
            expired: sum(9)?,
            refused: written.tally.refused.clone(),
            lost: sum(10)?,
            events_received: sum(11)?,
            events_duplicated: sum(12)?,
        };
        let last_seen = UnixMillis(row.get(5)?);
        agents.push((AgentId(sum(0)?), key, AgentRecord { last_seen, tally, ..written }));
    }
    Ok(agents)
}
