//! `onelane keys`: the client keys of a store that no lane runs on.

use std::time::Duration;

use onelane::model::{
    ClientKey, Face, KeyBudget, KeyForm, KeyRights, KeyRole, KeyState, KeyStep, OverBudget,
    Timestamp, Transition,
};
use onelane::orchestrator::{MadeKey, NewKey, rotation, stored_key};
use onelane::ports::{Clock as _, Store as _};
use onelane::store::RedbStore;
use onelane::system::{SystemClock, SystemIds};
use serde::Serialize;

use super::args::{
    CreateKeyArgs, KeysVerb, OneKeyArgs, OverArg, RoleArg, RotateKeyArgs, StoreArgs,
};
use super::exit::{CliError, Exit};
use super::offline;
use super::table::table;

/// Dispatches to the verb.
pub(crate) fn keys(verb: KeysVerb, json: bool) -> Result<Exit, CliError> {
    match verb {
        KeysVerb::Create(args) => create(*args, json),
        KeysVerb::List(args) => list(&args, json),
        KeysVerb::Show(args) => show(&args, json),
        KeysVerb::Revoke(args) => revoke(&args, json),
        KeysVerb::Rotate(args) => rotate(&args, json),
    }
}

fn create(args: CreateKeyArgs, json: bool) -> Result<Exit, CliError> {
    let now = SystemClock.now();
    let new = NewKey {
        name: args.name,
        role: match args.role {
            RoleArg::Client => KeyRole::Client,
            RoleArg::Viewer => KeyRole::Viewer,
        },
        form: match args.jwt {
            true => KeyForm::Jwt,
            false => KeyForm::Plain,
        },
        rights: KeyRights {
            user_id: args.user,
            default_priority: args.priority,
            max_priority: args.max_priority,
            models: args.models,
            faces: args.faces,
            names_sessions: !args.no_sessions,
            calls_in_flight: args.calls_in_flight,
            requests_per_minute: args.requests_per_minute,
            share: args.share,
            budget: args.budget.map(|budget| KeyBudget {
                over: match args.over {
                    OverArg::Wait => OverBudget::Wait,
                    OverArg::Refuse => OverBudget::Refuse,
                    OverArg::Warn => OverBudget::Warn,
                },
                ..budget
            }),
            on_disconnect: args.on_disconnect,
        },
        expires_at: args.expires_in.map(|span| now.plus_ms(whole_ms(span))),
    };
    let made = new.make(&SystemIds::new(), now)?;
    let offline = offline::open_or_create(&args.store)?;
    let change = Transition::InsertKey(Box::new(made.known.clone()));
    let known = stored_key(offline.store.commit(&[change])?.pop())?;
    tell(MadeKey { known, ..made }, json)?;
    Ok(Exit::Done)
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The key alone on standard output, all else beside it.
fn tell(made: MadeKey, json: bool) -> Result<(), CliError> {
    let known = made.known.clone();
    super::answer(json, &made, |made| made.text.expose().to_owned())?;
    let mut note = format!(
        "client key {} ({}); it is shown this once",
        known.id, known.name
    );
    if known.jwt {
        note.push_str(
            "\nSDKs sign with it, so its secret stays readable in the store: whoever reads the file has the key",
        );
    }
    if let Some(old) = &known.previous {
        note.push_str(&format!("\nthe old one opens until {}", old.until.until));
    } else if known.rotated_at.is_some() {
        note.push_str("\nthe old one opens nothing any more; --overlap gives its holders time");
    }
    super::note(&note);
    Ok(())
}

/// A key with what a list tells of it.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    key: ClientKey,
    state: &'static str,
}

impl Told {
    fn of(key: ClientKey, now: Timestamp) -> Self {
        let state = key.state(now).name();
        Self { key, state }
    }
}

#[derive(Serialize)]
struct List {
    keys: Vec<Told>,
}

/// All keys, the newest first.
fn all(store: &RedbStore) -> Result<Vec<ClientKey>, CliError> {
    let mut keys = store.client_keys()?;
    keys.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.id)));
    Ok(keys)
}

fn list(args: &StoreArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::look(args)?;
    let now = SystemClock.now();
    let keys = all(&offline.store)?.into_iter();
    let list = List {
        keys: keys.map(|key| Told::of(key, now)).collect(),
    };
    super::answer(json, &list, |list| text(list, &offline.path))?;
    Ok(Exit::Done)
}

fn text(list: &List, path: &str) -> String {
    if list.keys.is_empty() {
        return format!("{path} has no client keys");
    }
    let row = |told: &Told| {
        let key = &told.key;
        let rights = &key.rights;
        [
            key.id.to_string(),
            told.state.to_owned(),
            key.role.name().to_owned(),
            rights.user_id.clone().unwrap_or_else(|| "any".to_owned()),
            key.created_at.day().to_string(),
            key.expires_at
                .map_or_else(|| "never".to_owned(), |at| at.day().to_string()),
            key.name.clone(),
        ]
    };
    let rows: Vec<_> = list.keys.iter().map(row).collect();
    let head = ["KEY", "STATE", "ROLE", "USER", "CREATED", "EXPIRES", "NAME"];
    table(head, &rows)
}

/// The key that is meant: by its id, or by its name if that is one key's alone.
fn find(store: &RedbStore, asked: &str) -> Result<ClientKey, CliError> {
    let keys = all(store)?;
    if let Some(key) = keys.iter().find(|key| key.id.to_string() == asked) {
        return Ok(key.clone());
    }
    let mut named = keys.iter().filter(|key| key.name == asked);
    match (named.next(), named.next()) {
        (Some(key), None) => Ok(key.clone()),
        (Some(_), Some(_)) => Err(CliError::usage(format!(
            "several client keys are called {asked}"
        ))
        .help("give the id, as `onelane keys list` tells it")),
        // Whoever gives the whole key shall not find it in a log.
        (None, _) => Err(CliError::usage("there is no such client key")
            .help("`onelane keys list` tells ids and names; with --store, those of another store")),
    }
}

fn show(args: &OneKeyArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::look(&args.store)?;
    let key = find(&offline.store, &args.key)?;
    let told = Told::of(key, SystemClock.now());
    super::answer(json, &told, describe)?;
    Ok(Exit::Done)
}

fn describe(told: &Told) -> String {
    let (key, rights) = (&told.key, &told.key.rights);
    let mut lines = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<20} {value}")));
    };
    let listed = |names: Vec<&str>| (!names.is_empty()).then(|| names.join(", "));
    add("key", Some(key.id.to_string()));
    add("name", Some(key.name.clone()));
    add("state", Some(told.state.to_owned()));
    add("role", Some(key.role.name().to_owned()));
    add(
        "signs",
        key.jwt.then(|| "yes, readable in the store".into()),
    );
    add("user", rights.user_id.clone());
    add("priority", Some(rights.default_priority.to_string()));
    add(
        "highest priority",
        rights.max_priority.map(|n| n.to_string()),
    );
    let models = rights.models.iter().map(String::as_str).collect();
    add("models", listed(models));
    let faces = rights.faces.iter().copied().map(Face::name).collect();
    add("faces", listed(faces));
    add(
        "sessions",
        (!rights.names_sessions).then(|| "may name none".to_owned()),
    );
    add(
        "calls in flight",
        rights.calls_in_flight.map(|n| n.to_string()),
    );
    let requests = rights.requests_per_minute.map(|n| n.to_string());
    add("requests per minute", requests);
    add("share", Some(rights.share.to_string()));
    let budget = rights.budget.map(|budget| {
        let (limit, period) = (budget.limit, budget.period.name());
        let then = match budget.over {
            OverBudget::Wait => "then its jobs wait",
            OverBudget::Refuse => "then new jobs are refused",
            OverBudget::Warn => "beyond which it only warns",
        };
        format!("{limit} a {period}, {then}")
    });
    add("budget", budget);
    add(
        "on disconnect",
        rights.on_disconnect.map(|what| what.to_string()),
    );
    add("created", Some(key.created_at.to_string()));
    add("expires", key.expires_at.map(|at| at.to_string()));
    add("rotated", key.rotated_at.map(|at| at.to_string()));
    add("revoked", key.revoked_at.map(|at| at.to_string()));
    lines.join("\n")
}

fn revoke(args: &OneKeyArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::open(&args.store)?;
    let key = find(&offline.store, &args.key)?;
    let (id, at) = (key.id, SystemClock.now());
    let was_dead = matches!(key.state(at), KeyState::Revoked(_));
    let step = KeyStep::Revoke;
    let change = Transition::Key { id, step, at };
    let key = stored_key(offline.store.commit(&[change])?.pop())?;
    let told = Told::of(key, at);
    super::answer(json, &told, |told| {
        let how = if was_dead {
            "was revoked before"
        } else {
            "is revoked"
        };
        format!("client key {} ({}) {how}", told.key.id, told.key.name)
    })?;
    Ok(Exit::Done)
}

fn rotate(args: &RotateKeyArgs, json: bool) -> Result<Exit, CliError> {
    let offline = offline::open(&args.store)?;
    let key = find(&offline.store, &args.key)?;
    let overlap_ms = whole_ms(args.overlap);
    let ids = SystemIds::new();
    let (change, text) = rotation(&ids, &key, overlap_ms, SystemClock.now())?;
    let known = stored_key(offline.store.commit(&[change])?.pop())?;
    tell(MadeKey { text, known }, json)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use onelane::model::{KeyId, KeySecret};

    use super::*;

    fn key(n: u64, name: &str) -> ClientKey {
        let id = KeyId::new(n);
        let (secret, _) = KeySecret::make(id, &[3; 32], KeyForm::Plain);
        ClientKey::new(id, name, secret, Timestamp::default())
    }

    #[test]
    fn a_key_is_told_with_its_rights_and_without_its_secret() {
        let mut made = key(1, "agent");
        made.rights.user_id = Some("ada".into());
        made.rights.calls_in_flight = Some(2);
        made.rights.budget = Some("1000 tokens/day".parse().unwrap());
        made.expires_at = Some(Timestamp::from_millis(1));
        let told = describe(&Told::of(made.clone(), Timestamp::from_millis(1)));
        for part in [
            "ol-0000000000000001",
            "agent",
            "ada",
            "expired",
            "1000 tokens a day, then its jobs wait",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
        assert!(!told.contains("0303") && !told.contains(made.secret.sha256()));
        let list = List {
            keys: vec![Told::of(made, Timestamp::default())],
        };
        let told = text(&list, "onelane.redb");
        assert!(told.contains("live") && told.contains("agent"), "{told}");
    }
}
