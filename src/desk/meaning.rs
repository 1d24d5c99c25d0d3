//! What GLM said in a failure, and what that means.

use onelane_core::model::{Failure, FailureClass};

use super::words::Lang;
use crate::glm::ErrorTable;

/// What was said, apart from what that means, which the message may have at its end.
pub(super) fn said(failure: &Failure) -> String {
    let means = ErrorTable::shipped().explanation(&failure.code, failure.class);
    let message = failure.message.trim();
    let said = message
        .strip_suffix(&*format!("[{means}]"))
        .unwrap_or(message);
    said.trim().to_owned()
}

/// The same of what a hold keeps, which has no class.
pub(super) fn said_of_code<'m>(code: &str, message: &'m str) -> &'m str {
    let means = of_code(code, Lang::En);
    let ours = means.and_then(|means| message.rfind(&format!("[{means};")));
    let said = ours.filter(|_| message.ends_with(']'));
    said.and_then(|end| message.get(..end))
        .map_or(message, str::trim_end)
}

/// What a failure means, and what to do.
pub(super) fn means(failure: &Failure, lang: Lang) -> String {
    explained(&failure.code, failure.class, lang)
}

fn explained(code: &str, class: FailureClass, lang: Lang) -> String {
    let table = ErrorTable::shipped();
    match lang {
        Lang::En => table.explanation(code, class),
        Lang::Zh => table.explanation_zh(code, class),
    }
}

/// What a code means, where it is known.
pub(super) fn of_code(code: &str, lang: Lang) -> Option<String> {
    match lang {
        Lang::En => ErrorTable::meanings().get(code).cloned(),
        Lang::Zh => ErrorTable::shipped().meaning_zh(code).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_glm_said_stands_apart_from_what_it_means() {
        let class = FailureClass::RequestFatal;
        let en = explained("1261", class, Lang::En);
        let check = |message: String, want: &str| {
            let failure = Failure::new(class, "1261", message);
            assert_eq!(said(&failure), want);
            assert_eq!(means(&failure, Lang::En), en);
            let zh = means(&failure, Lang::Zh);
            assert!(zh.starts_with("提示词超过上下文长度；缩短提示词"), "{zh}");
        };
        check(format!("Prompt 超长 [{en}]"), "Prompt 超长");
        check("Prompt 超长 [other]".to_owned(), "Prompt 超长 [other]");
        check(format!("[{en}]"), "");
        let both = format!("Prompt 超长 [{en}]");
        assert_eq!(said_of_code("1261", &both), "Prompt 超长");
        assert_eq!(said_of_code("1262", &both), both);
    }
}
