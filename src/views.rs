//! The shapes with set field names, `GLMRequestQueue` and `GLMCallLog`, and what lists show of prompts and
//! answers. Every other noun goes out in the form that it has by itself.

mod call;
#[cfg_attr(
    not(feature = "api"),
    expect(
        dead_code,
        reason = "an export shows bodies whole; lists are the API's"
    )
)]
mod excerpt;
#[cfg_attr(
    not(feature = "api"),
    expect(dead_code, reason = "an export shows jobs whole; lists are the API's")
)]
mod job;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use call::CallView;
#[cfg(feature = "api")]
pub(crate) use excerpt::Excerpt;
#[cfg(feature = "api")]
pub(crate) use job::Audience;
pub(crate) use job::JobView;
