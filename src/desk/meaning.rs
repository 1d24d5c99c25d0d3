//! What GLM said in a failure, and what that means.

use onelane_core::model::Failure;

use crate::glm::ErrorTable;

/// What was said, and apart from it what that means and what to do, which the message may have at its end.
pub(super) fn of(failure: &Failure) -> (String, String) {
    let means = ErrorTable::shipped().explanation(&failure.code, failure.class);
    let message = failure.message.trim();
    let said = message
        .strip_suffix(&*format!("[{means}]"))
        .unwrap_or(message);
    (said.trim().to_owned(), means)
}

#[cfg(test)]
mod tests {
    use onelane_core::model::FailureClass;

    use super::*;

    #[test]
    fn what_glm_said_stands_apart_from_what_it_means() {
        let class = FailureClass::RequestFatal;
        let means = ErrorTable::shipped().explanation("1261", class);
        let check = |message: String, said: &str| {
            let failure = Failure::new(class, "1261", message);
            assert_eq!(of(&failure), (said.to_owned(), means.clone()));
        };
        check(format!("Prompt 超长 [{means}]"), "Prompt 超长");
        check("Prompt 超长 [other]".to_owned(), "Prompt 超长 [other]");
        check(format!("[{means}]"), "");
    }
}
