//! Panics that nobody planned: an actor that panics is started anew, and its world has to hear of it.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// As long as it lives, what panics on this thread is kept and not printed.
pub(crate) struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENS.set(false);
    }
}

/// A world begins on this thread.
pub(crate) fn listen() -> Listening {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !LISTENS.get() {
                return print(panic);
            }
            let place = panic
                .location()
                .map(|at| format!(" at {}:{}", at.file(), at.line()));
            let words = panic.payload_as_str().unwrap_or("?");
            let said = format!("{words}{}", place.unwrap_or_default());
            HEARD.with_borrow_mut(|heard| heard.get_or_insert(said).len());
        }));
    });
    LISTENS.set(true);
    HEARD.take();
    Listening
}

/// The first panic since this was asked last.
pub(crate) fn take() -> Option<String> {
    HEARD.take()
}
