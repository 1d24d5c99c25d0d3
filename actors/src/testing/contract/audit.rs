//! Orders of operators: on record whole, newest first, so many at most.

use super::super::sample::{START, job_id};
use super::{Open, done};
use crate::ports::Store;
use onelane_core::model::{ActedBy, ActedFrom, ActedHow, AuditEntry, AuditId, Transition, limits};
use serde_json::value::RawValue;

fn entry(n: u64) -> AuditEntry {
    AuditEntry {
        id: AuditId::of(job_id(n)),
        at: START.plus_ms(n),
        by: ActedBy::Admin,
        from: ActedFrom::Page,
        what: "POST /api/admin/glm/pause".to_owned(),
        on: None,
        detail: None,
        outcome: ActedHow::Begun,
        count: None,
        problem: None,
    }
}

fn put(entry: &AuditEntry) -> Transition {
    Transition::Audit(Box::new(entry.clone()))
}

fn ids(entries: &[AuditEntry]) -> Vec<AuditId> {
    entries.iter().map(|entry| entry.id).collect()
}

/// What became of an order takes the place of what was on record of it, to the byte, and outlives the process.
pub fn an_order_is_on_record_with_what_became_of_it<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    assert!(store.audit(None, 10).unwrap().is_empty());
    done(&store, &[put(&entry(1)), put(&entry(2))]);
    let detail = r#"{"cost": 0.0125, "x":null}"#;
    let whole = AuditEntry {
        on: Some("alice".to_owned()),
        detail: RawValue::from_string(detail.to_owned()).ok(),
        outcome: ActedHow::Refused,
        count: Some(500),
        problem: Some("no such hold".to_owned()),
        ..entry(1)
    };
    done(&store, &[put(&whole)]);
    drop(store);
    let store = open_store();
    let found = store.audit(None, 10).unwrap();
    assert_eq!(ids(&found), [entry(2).id, entry(1).id], "newest first");
    let told = serde_json::to_string(&found[1]).unwrap();
    assert_eq!(told, serde_json::to_string(&whole).unwrap());
    assert_eq!(found[1].detail.as_ref().unwrap().get(), detail);
    assert_eq!(
        ids(&store.audit(Some(entry(2).id), 10).unwrap()),
        [entry(1).id]
    );
    assert_eq!(ids(&store.audit(None, 1).unwrap()), [entry(2).id]);
}

/// There are so many orders on record at most; the oldest go.
pub fn of_orders_the_oldest_go<S: Store>(open_store: Open<'_, S>) {
    let store = open_store();
    let most = limits::AUDIT_ROWS_MAX as u64;
    let many: Vec<Transition> = (1..=most).map(|n| put(&entry(n))).collect();
    done(&store, &many);
    assert_eq!(store.audit(None, usize::MAX).unwrap().len() as u64, most);
    done(&store, &[put(&entry(most + 1)), put(&entry(most + 2))]);
    let kept = store.audit(None, usize::MAX).unwrap();
    assert_eq!(kept.len() as u64, most);
    assert_eq!(kept.first().unwrap().id, entry(most + 2).id);
    assert_eq!(kept.last().unwrap().id, entry(3).id);
}
