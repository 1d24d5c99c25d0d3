//! What GLM says when it does not answer, and what it reads in a request.

use onelane_actors::testing::Dice;
use onelane_core::model::{Failure, FailureClass, Request, code};

/// What a request says.
pub(crate) fn text_of(request: &Request) -> &str {
    match request {
        Request::Prompt(text) => text,
        Request::Body(_, raw) => raw.get(),
    }
}

/// The number of the event that brought a request.
pub(crate) fn number_of(request: &Request) -> &str {
    let text = text_of(request);
    let after = text.find("prompt ").or_else(|| text.find("poison "));
    let number = after.map_or("", |at| &text[at + 7..]);
    let end = number.find(|c: char| !c.is_ascii_digit());
    &number[..end.unwrap_or(number.len())]
}

/// The connection broke in the middle of an answer.
pub(crate) fn cut_off() -> Failure {
    let class = FailureClass::ServerTransient;
    let mut failure = Failure::new(class, code::CONNECTION, "reset in the middle of it");
    failure.maybe_billed = true;
    failure
}

pub(crate) fn stated(class: FailureClass, code: &str, status: u16) -> Failure {
    Failure {
        status_code: Some(status),
        ..Failure::new(class, code, "GLM says no")
    }
}

pub(crate) fn broken(dice: &mut Dice) -> Failure {
    let transient = FailureClass::ServerTransient;
    match dice.below(5) {
        0 => stated(transient, "http_503", 503),
        1 => stated(transient, "1234", 500),
        2 => stated(FailureClass::DuplicateRequest, "1231", 400),
        3 => Failure::new(FailureClass::Unreachable, code::UNREACHABLE, "refused"),
        _ => {
            let mut failure = Failure::new(transient, code::CONNECTION, "reset");
            failure.maybe_billed = dice.one_in(2);
            failure
        }
    }
}
