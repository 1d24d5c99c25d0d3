//! What stands around every page: where one is, who one is, what was just done.

use warp::http::Method;

use super::asked::{Asked, Look};
use super::assets::{self, Links};
use super::show::number;
use super::terms::Terms;
use super::words::{Words, fill};
use crate::api::site::{Principal, Problem};

/// The pages to which the head leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nav {
    Overview,
    Jobs,
    Batches,
    Calls,
    Slots,
    Usage,
    Models,
    Budgets,
    Holds,
    Alerts,
    Keys,
    Config,
    Audit,
}

impl Nav {
    const ALL: [Self; 13] = [
        Self::Overview,
        Self::Jobs,
        Self::Batches,
        Self::Calls,
        Self::Slots,
        Self::Usage,
        Self::Models,
        Self::Budgets,
        Self::Holds,
        Self::Alerts,
        Self::Keys,
        Self::Config,
        Self::Audit,
    ];

    fn link(self, w: &Words, t: &Terms) -> (&'static str, &'static str) {
        match self {
            Self::Overview => ("/", w.overview),
            Self::Jobs => ("/desk/jobs", w.jobs),
            Self::Batches => ("/desk/batches", t.batches),
            Self::Calls => ("/desk/calls", t.calls),
            Self::Slots => ("/desk/slots", t.slots),
            Self::Usage => ("/desk/usage", t.usage),
            Self::Models => ("/desk/models", t.models),
            Self::Budgets => ("/desk/budgets", w.budgets),
            Self::Holds => ("/desk/holds", t.holds),
            Self::Alerts => ("/desk/alerts", w.alerts),
            Self::Keys => ("/desk/keys", t.keys),
            Self::Config => ("/desk/config", t.config),
            Self::Audit => ("/desk/audit", w.audit),
        }
    }
}

macro_rules! notes {
    ($($note:ident $name:literal $words:ident;)*) => {
        /// What a form did, as the page says it that follows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Note {
            $($note,)*
        }

        impl Note {
            const ALL: &[Self] = &[$(Self::$note,)*];

            pub(super) const fn name(self) -> &'static str {
                match self {
                    $(Self::$note => $name,)*
                }
            }

            const fn words(self, w: &Words) -> &'static str {
                match self {
                    $(Self::$note => w.$words,)*
                }
            }
        }
    };
}

notes! {
    Pause "pause" done_pause;
    Resume "resume" done_resume;
    Release "release" done_release;
    Set "set" done_set;
    RetryMany "retry-many" done_retry_many;
    CancelMany "cancel-many" done_cancel_many;
    ReprioritiseMany "reprioritise-many" done_reprioritise_many;
    Retry "retry" done_retry;
    Cancel "cancel" done_cancel;
    Reprioritise "reprioritise" done_reprioritise;
    Erase "erase" done_erase;
    Again "again" done_again;
    Reset "reset" done_reset;
    Settled "settled" done_settled;
    BatchCancelled "batch-cancelled" done_batch_cancelled;
    Revoked "revoked" done_revoked;
    Tested "tested" done_tested;
    Redelivered "redelivered" done_redelivered;
    RedeliveredMany "redelivered-many" done_redelivered_many;
    Saved "saved" done_saved;
    Shadowed "shadowed" done_shadowed;
}

impl Note {
    /// Whether a pair of a query tells one.
    pub(super) fn is_told(pair: &str) -> bool {
        pair.starts_with("note=") || pair.starts_with("n=")
    }

    fn of(asked: &Asked) -> Option<String> {
        let name = asked.query("note")?;
        let note = Self::ALL.iter().find(|note| note.name() == name)?;
        let count: u64 = asked.query("n").and_then(|n| n.parse().ok()).unwrap_or(0);
        Some(fill(note.words(asked.words()), &[&number(count)]))
    }
}

/// A link of the head.
pub(super) struct Link {
    pub(super) href: &'static str,
    pub(super) text: &'static str,
    pub(super) is_current: bool,
    /// How many there are behind it that matter.
    pub(super) count: Option<String>,
    pub(super) warns: bool,
}

/// What stands around a page.
pub(super) struct Frame {
    pub(super) w: &'static Words,
    pub(super) look: Look,
    pub(super) links: Links,
    pub(super) nav: Vec<Link>,
    /// `None`: nobody is logged in.
    pub(super) who: Option<&'static str>,
    pub(super) may_log_out: bool,
    pub(super) may_operate: bool,
    /// What forms say.
    pub(super) token: String,
    /// Where forms lead back to.
    pub(super) here: String,
    pub(super) note: Option<String>,
    /// It is looked at again when something happened. What sums up many days is not.
    pub(super) is_live: bool,
}

impl Frame {
    /// Around a page for somebody who was let in.
    pub(super) async fn of(asked: &Asked, nav: Nav) -> Result<Self, Problem> {
        let (w, principal) = (asked.words(), asked.principal());
        let (t, alerts) = (
            Terms::of(asked.look.lang),
            asked.lane().alerts().active.len() as u64,
        );
        let waiting = asked.lane().queue_status().await?.pending;
        let link = |page: Nav| {
            let (href, text) = page.link(w, t);
            let count = match page {
                Nav::Jobs => waiting,
                Nav::Alerts => alerts,
                _ => 0,
            };
            Link {
                href,
                text,
                is_current: page == nav,
                count: (count > 0).then(|| number(count)),
                warns: page == Nav::Alerts,
            }
        };
        Ok(Self {
            nav: Nav::ALL.into_iter().map(link).collect(),
            who: Some(match principal {
                Principal::Admin => w.admin,
                Principal::Local => w.local,
                Principal::Viewer | Principal::Client(_) => w.viewer,
            }),
            may_log_out: !asked.visit.is_open(),
            may_operate: asked.may_operate(),
            note: (asked.visit.method == Method::GET)
                .then(|| Note::of(asked))
                .flatten(),
            ..Self::bare(asked.look, asked.here(), asked.form_token().to_owned())
        })
    }

    /// Around a page for anybody.
    pub(super) fn bare(look: Look, here: String, token: String) -> Self {
        Self {
            w: look.words(),
            look,
            links: assets::links(),
            nav: Vec::new(),
            who: None,
            may_log_out: false,
            may_operate: false,
            token,
            here,
            note: None,
            is_live: true,
        }
    }

    /// The `lang` of the document.
    pub(super) fn lang(&self) -> &'static str {
        self.look.lang.name()
    }

    /// The language to which one may switch.
    pub(super) fn other_lang(&self) -> &'static str {
        match self.lang() {
            "en" => "zh",
            _ => "en",
        }
    }

    /// Every theme with its name, and whether it is the one in force.
    pub(super) fn themes(&self) -> [(&'static str, &'static str, bool); 3] {
        use super::asked::Theme::{Auto, Dark, Light};
        [
            (Auto, self.w.theme_auto),
            (Light, self.w.theme_light),
            (Dark, self.w.theme_dark),
        ]
        .map(|(theme, text)| (theme.name(), text, self.look.theme == theme))
    }
}
