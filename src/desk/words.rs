//! What pages say, in both languages: a message is a field with its two texts, so that none can be missing. `{}` stands
//! for what is put in ([`fill`]).

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lang {
    En,
    Zh,
}

impl Lang {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::En, Self::Zh]
            .into_iter()
            .find(|lang| lang.name() == name)
    }

    /// The language that an `Accept-Language` likes best of those that there are.
    pub(super) fn wanted(header: &str) -> Self {
        let mut best = (Self::En, 0.0);
        for wanted in header.split(',') {
            let mut parts = wanted.split(';');
            let name = parts.next().unwrap_or_default().trim();
            let quality = parts.find_map(|part| part.trim().strip_prefix("q=")?.parse().ok());
            let quality: f32 = quality.unwrap_or(1.0);
            let lang = Self::parse(name.split('-').next().unwrap_or_default());
            if let Some(lang) = lang.filter(|_| quality > best.1) {
                best = (lang, quality);
            }
        }
        best.0
    }
}

/// Puts values into the places of a message, one after the other.
pub(super) fn fill(text: &str, values: &[&str]) -> String {
    let mut parts = text.split("{}");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    let mut values = values.iter();
    for part in parts {
        filled.push_str(values.next().unwrap_or(&""));
        filled.push_str(part);
    }
    filled
}

macro_rules! catalogue {
    ($words:ident; $($name:ident: $en:literal, $zh:literal;)*) => {
        /// Every message in one language.
        #[derive(Debug)]
        pub(super) struct $words {
            $(pub(super) $name: &'static str,)*
        }

        static EN: $words = $words { $($name: $en,)* };
        static ZH: $words = $words { $($name: $zh,)* };

        impl $words {
            pub(super) fn of(lang: Lang) -> &'static Self {
                match lang {
                    Lang::En => &EN,
                    Lang::Zh => &ZH,
                }
            }

            /// Name and texts of every message.
            #[cfg(test)]
            pub(super) const ALL: &'static [(&'static str, &'static str, &'static str)] =
                &[$((stringify!($name), $en, $zh),)*];
        }
    };
}

pub(super) use catalogue;

catalogue! {
    Words;
    // Around every page.
    overview: "Overview", "总览";
    jobs: "Jobs", "任务";
    audit: "Audit", "操作记录";
    skip: "Skip to the content", "跳到正文";
    other_language: "中文", "English";
    theme: "Theme", "主题";
    theme_auto: "system", "跟随系统";
    theme_light: "light", "浅色";
    theme_dark: "dark", "深色";
    search: "Search jobs: id, content id, text", "搜索任务：ID、内容 ID、文本";
    admin: "admin", "管理员";
    viewer: "viewer", "只读";
    local: "this machine", "本机";
    log_out: "Log out", "退出";
    gone: "The daemon does not answer. What you see is how things stood.", "守护进程没有响应，当前显示的是之前的状态。";
    help: "Keys", "快捷键";
    help_search: "search", "搜索";
    help_rows: "next, previous row", "下一行、上一行";
    help_open: "open the row", "打开该行";
    help_pause: "pause, or resume", "暂停或恢复";
    help_help: "this help", "本帮助";
    close: "Close", "关闭";
    // Login.
    log_in: "Log in", "登录";
    log_in_about: "With the admin token, the viewer token, or a viewer's client key.", "使用管理员令牌、只读令牌，或只读角色的客户端密钥。";
    token: "Token or key", "令牌或密钥";
    wrong_token: "Nobody gets in with that.", "令牌或密钥无效。";
    too_many_tries: "Too many tries failed. Try again in {} s.", "尝试次数过多，请在 {} 秒后再试。";
    back: "Back to the overview", "返回总览";
    // Numbers.
    unit_ms: "ms", "毫秒";
    unit_s: "s", "秒";
    unit_min: "min", "分钟";
    unit_h: "h", "小时";
    unit_d: "d", "天";
    in_time: "in {}", "{}后";
    ago: "{} ago", "{}前";
    now: "now", "刚刚";
    none: "–", "–";
    // The first line.
    running: "running", "运行中";
    idle: "idle", "空闲";
    paused: "paused", "已暂停";
    held: "held", "已挂起";
    waiting: "waiting", "等待中";
    draining: "draining", "排空中";
    off: "off", "已停用";
    stopping: "stopping", "正在停止";
    breaker_open: "breaker open", "熔断";
    trouble: "trouble", "异常";
    one_open: "One call is open for {}", "有 1 个调用进行中，已 {}";
    some_open: "{} calls are open, the longest for {}", "有 {} 个调用进行中，最久 {}";
    none_open: "No call is open", "没有进行中的调用";
    nothing_waits: "nothing waits", "没有任务在等待";
    one_waits: "one job waits", "有 1 个任务在等待";
    some_wait: "{} jobs wait", "有 {} 个任务在等待";
    goes_on: "Goes on by itself {}.", "将在{}自动恢复。";
    waits_for_operator: "Lasts until an operator acts.", "需要操作员处理。";
    no_job_fails: "No job fails while it waits.", "等待期间不会有任务失败。";
    since: "since {}", "自{}起";
    maybe_billed: "{} attempts may have been billed although no answer is stored", "{} 次尝试可能已计费但没有保存结果";
    // Orders.
    pause: "Pause", "暂停";
    resume: "Resume", "恢复";
    release: "Release now", "立即解除";
    reason: "Reason, shown wherever the lane is", "原因（会显示在各处）";
    concurrency: "Calls at once", "并发调用数";
    set: "Set", "设置";
    done_pause: "The lane is paused.", "已暂停。";
    done_resume: "The lane goes on.", "已恢复。";
    done_release: "The hold is over.", "已解除挂起。";
    done_set: "The setting is in force.", "设置已生效。";
    // Overview.
    queue_waiting: "Waiting", "等待";
    oldest: "oldest {}", "最早 {}";
    wait_times: "Wait, p50 / p90 / p99", "等待时间 p50 / p90 / p99";
    throughput: "Calls in the last hour", "最近一小时调用数";
    failed_share: "{} % of the latest failed", "最近失败率 {} %";
    response_time: "answer {}", "响应 {}";
    first_token_after: "first token {}", "首个令牌 {}";
    spent_today: "Spent today", "今日花费";
    unpriced: "{} calls without a known cost", "{} 次调用费用未知";
    cached: "cached {} %", "提示词缓存命中 {} %";
    no_budget: "no budget is set", "未设置预算";
    lanes: "Lanes", "通道";
    lane: "lane", "通道";
    state: "state", "状态";
    open_of: "open", "进行中";
    flows: "flows", "畅通";
    running_now: "Running now", "正在运行";
    nothing_runs: "Nothing runs.", "没有正在运行的任务。";
    next: "Next", "接下来";
    next_none: "Nobody is in line.", "队列为空。";
    why: "Why jobs wait", "等待原因";
    nobody_waits: "No job waits.", "没有任务在等待。";
    by_priority: "By priority", "按优先级";
    priority: "priority", "优先级";
    alerts: "Alerts", "告警";
    budgets: "Budgets", "预算";
    latest: "Latest calls", "最近调用";
    no_calls: "No call was made yet.", "还没有调用。";
    col_when: "when", "时间";
    col_job: "job", "任务";
    col_user: "user", "用户";
    col_model: "model", "模型";
    col_outcome: "outcome", "结果";
    col_waited: "waited", "等待";
    col_answer: "answer", "响应";
    col_tokens: "tokens", "令牌数";
    col_cost: "cost", "费用";
    elapsed: "elapsed", "已用时";
    so_far: "tokens so far", "已生成令牌";
    answered_by: "answered by {}", "由 {} 回答";
    // Jobs.
    st_all: "all", "全部";
    st_pending: "waiting", "等待中";
    st_processing: "running", "运行中";
    st_completed: "done", "已完成";
    st_failed: "failed", "失败";
    st_cancelled: "cancelled", "已取消";
    text: "Text", "文本";
    content: "content", "内容";
    session: "session", "会话";
    batch: "batch", "批次";
    key: "key", "密钥";
    error_code: "error code", "错误码";
    filter: "Filter", "筛选";
    clear: "Clear", "清除";
    match_words: "match", "个匹配";
    searched: "of the latest {} jobs; go on with older ones", "（已搜索最近 {} 个任务，可继续搜索更早的）";
    no_match: "Nothing matches.", "没有匹配的任务。";
    no_jobs: "There are no jobs.", "没有任务。";
    retry_all: "Retry all that match…", "重试所有匹配项…";
    cancel_all: "Cancel all that match…", "取消所有匹配项…";
    move_all: "Change priority of all…", "修改所有匹配项的优先级…";
    ask_retry: "Put {} jobs back in line?", "将 {} 个任务放回队列？";
    ask_cancel: "Cancel {} jobs?", "取消 {} 个任务？";
    ask_reprioritise: "Change the priority of {} jobs?", "修改 {} 个任务的优先级？";
    every_job: "every job", "全部任务";
    do_it: "Yes, do it", "确认";
    leave_it: "No, leave them", "返回";
    newest: "Newest", "最新";
    older: "Older", "更早";
    submitted: "submitted", "提交于";
    done_retry_many: "{} jobs are back in line.", "{} 个任务已放回队列。";
    done_cancel_many: "{} jobs were cancelled.", "已取消 {} 个任务。";
    done_reprioritise_many: "The priority of {} jobs was changed.", "已修改 {} 个任务的优先级。";
    // A job.
    attempts: "Attempts", "尝试";
    col_attempts: "attempts", "尝试";
    cost: "Cost", "费用";
    no_attempts: "None has ended yet.", "还没有已结束的尝试。";
    no: "no.", "序号";
    sent: "sent", "发送";
    life: "Its life", "生命周期";
    waits_now: "Waits now", "正在等待";
    waited_turn: "waited for its turn", "等待轮到";
    cooled_down: "cool-down ({})", "冷却（{}）";
    waited_retry: "waited for a retry ({})", "等待重试（{}）";
    attempt_of: "attempt {} · {}", "第 {} 次 · {}";
    staged: "staged for a slot", "已就绪，等待槽位";
    stored: "start put on disk", "开始前写入磁盘";
    part_connect: "connect", "建立连接";
    part_first_token: "first token", "首个令牌";
    part_decode: "answer", "生成回答";
    tokens_so_far: "{} tokens so far", "已生成 {} 个令牌";
    runs_now: "runs now", "正在运行";
    job_runs: "Its call is open for {}.", "调用进行中，已 {}。";
    job_done: "Done {}, {} after it was submitted.", "{}完成，提交后用时 {}。";
    job_failed: "Failed {}: {}", "{}失败：{}";
    job_cancelled: "Cancelled {}.", "{}取消。";
    cost_unknown: "of some attempts it is not known", "部分尝试费用未知";
    in_doubt: "maybe billed", "可能已计费";
    answered: "answered by", "回答模型";
    deadline: "deadline", "截止时间";
    retries: "retries", "重试";
    callback: "callback", "回调";
    yes: "yes", "有";
    prompt: "Prompt", "提示词";
    answer: "Answer", "回答";
    characters: "{} characters", "{} 个字符";
    text_none: "none", "无";
    text_gone: "erased or pruned", "已擦除或清理";
    text_cut: "the beginning of it", "仅显示开头";
    reveal: "Reveal prompt and answer", "显示提示词和回答";
    is_recorded: "is recorded", "会被记录";
    retry: "Retry", "重试";
    move_it: "Priority", "优先级";
    run_again: "Run with another model", "换模型运行";
    run_again_do: "Run", "运行";
    cancel: "Cancel", "取消";
    cancel_asks: "An open call is closed, and may be billed.", "进行中的调用会被关闭，可能已计费。";
    cancel_do: "Cancel the job", "取消任务";
    erase: "Erase", "擦除";
    erase_asks: "Prompt and answer go for good; what it cost stays.", "提示词和回答将被永久删除，账目保留。";
    erase_do: "Erase prompt and answer", "擦除提示词和回答";
    done_retry: "The job is back in line.", "任务已放回队列。";
    done_cancel: "The job is cancelled.", "任务已取消。";
    done_reprioritise: "Its priority was changed.", "优先级已修改。";
    done_erase: "Prompt and answer are erased.", "提示词和回答已擦除。";
    done_again: "This is the new job.", "这是新任务。";
    // What forms of the other pages did.
    done_reset: "The breaker is closed.", "熔断器已关闭。";
    done_settled: "It is on record that it was not billed.", "已记录为未计费。";
    done_batch_cancelled: "The batch is given up.", "批次已取消。";
    done_revoked: "The key opens nothing any more.", "密钥已吊销。";
    done_tested: "{} test notices are on their way.", "已发送 {} 条测试通知。";
    done_redelivered: "The delivery is on its way again.", "已重新投递。";
    done_redelivered_many: "{} deliveries are on their way again.", "已重新投递 {} 条。";
    done_saved: "The change is in force.", "更改已生效。";
    done_shadowed: "The change is stored, and not in force: a flag or the environment outweighs {} of its settings.", "更改已保存但未生效：有 {} 项被命令行参数或环境变量覆盖。";
    // Audit.
    audit_about: "Every order that changes something, or shows what is somebody's own, by page and by API.", "通过页面和 API 进行的每一次更改或查看他人内容的操作。";
    audit_none: "Nobody has given an order yet.", "还没有操作记录。";
    who: "who", "谁";
    what: "what", "操作";
    on: "on", "对象";
    how_many: "how many", "数量";
    from_page: "page", "页面";
    from_api: "API", "接口";
    act_begun: "begun", "进行中";
    act_done: "done", "完成";
    act_refused: "refused", "被拒绝";
    out_completed: "done", "完成";
    out_failed: "failed", "失败";
    out_cancelled: "cancelled", "已取消";
    out_interrupted: "interrupted", "中断";
}

/// Each message has both texts, with as many places for values.
#[cfg(test)]
pub(super) fn check_both(all: &[(&str, &str, &str)]) {
    for (name, en, zh) in all {
        assert!(!en.is_empty() && !zh.is_empty(), "{name}");
        let places = |text: &str| text.matches("{}").count();
        assert_eq!(places(en), places(zh), "{name}");
        let han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
        let is_switch = *name == "other_language";
        assert!(is_switch || !en.contains(han), "{name}: {en}");
        let is_word = zh.chars().any(char::is_alphabetic);
        assert!(is_switch || !is_word || zh.contains(han), "{name}: {zh}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_has_both_texts_with_the_same_places() {
        check_both(Words::ALL);
    }

    #[test]
    fn values_stand_in_the_places_of_a_message() {
        assert_eq!(fill("{} of {}", &["1", "2"]), "1 of 2");
        assert_eq!(fill("none", &["1"]), "none");
        assert_eq!(fill("{}{}", &["{}", "x"]), "{}x");
    }
}
