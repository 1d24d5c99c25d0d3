//! What the pages of books and steering say, in both languages: usage, models, budgets, holds, calls, slots, batches, keys,
//! alerts, configuration. What all pages share is in [`words`](super::words).

use super::words::{Lang, catalogue};

catalogue! {
    Terms;
    // The pages.
    usage: "Usage", "用量";
    models: "Models", "模型";
    holds: "Holds", "挂起";
    calls: "Calls", "调用";
    col_calls: "calls", "调用";
    slots: "Slots", "槽位";
    batches: "Batches", "批次";
    keys: "Keys", "密钥";
    config: "Settings", "配置";
    // On several of them.
    all: "all", "全部";
    name: "name", "名称";
    from: "from", "从";
    to: "to", "到";
    until: "until", "直到";
    since: "since", "自";
    what: "of", "对象";
    share: "share", "占比";
    length: "time", "时长";
    times: "times", "次数";
    done: "done", "完成";
    made: "made", "创建";
    budget: "budget", "预算";
    a_day: "a day", "每天";
    a_month: "a month", "每月";
    no_usage: "No call was made in that time.", "该时段没有调用。";
    // Usage.
    by_day: "day", "天";
    by_month: "month", "月";
    by_day_model: "day and model", "天和模型";
    no_key: "without a key", "无密钥";
    cached: "cached", "缓存";
    cached_about: "of prompts came from GLM's cache", "提示词来自 GLM 缓存的比例";
    tokens_in_out: "Tokens, prompt + answer", "令牌，提示词 + 回答";
    prompt_tokens: "prompt", "提示词";
    completion_tokens: "answer", "回答";
    half_answer: "answer, p50", "响应 p50";
    cost_over_time: "Cost by {}", "每{}费用";
    calls_over_time: "Calls by {}", "每{}调用数";
    n_calls: "{} calls", "{} 次调用";
    more_rows: "{} more rows; the CSV has all of them.", "还有 {} 行，CSV 中包含全部。";
    // Our books beside GLM's meter.
    reconciliation: "Our books and GLM's", "账目核对";
    reconciliation_about: "Tokens of each day and model, as they are booked here and as GLM counts them. Days are GLM's own, of UTC+8.", "按天、按模型比较本地账目与 GLM 统计的令牌数。日期按 GLM 的 UTC+8 计算。";
    not_asked: "not asked", "未查询";
    not_asked_about: "GLM is not asked what it counts. Set account.enabled = true in the settings.", "未向 GLM 查询用量。请在配置中设置 account.enabled = true。";
    books_agree: "they agree", "一致";
    books_differ: "they differ", "不一致";
    not_whole: "not all is told", "数据不全";
    compared: "{} to {}", "{} 至 {}";
    days_not_told: "GLM did not tell of {}: {}", "GLM 未提供 {} 的数据：{}";
    calls_gone: "{} calls of that time are in the log no more: what they used seems not to be ours.", "该时段有 {} 次调用已从日志中清除，其用量会显示为不属于本机。";
    differences: "Differences", "差异";
    difference: "difference", "差异";
    cause: "cause", "原因";
    side_by_side: "Side by side", "对照";
    our_calls: "our calls", "本地调用";
    glms_calls: "GLM's calls", "GLM 调用";
    our_tokens: "our tokens", "本地令牌";
    glms_tokens: "GLM's tokens", "GLM 令牌";
    more_lines: "{} more days and models", "还有 {} 行";
    in_doubt: "in doubt", "存疑";
    in_doubt_about: "Nobody knows here whether these calls were billed.", "本地不清楚这些调用是否计费。";
    switched: "model switched", "模型被替换";
    switched_about: "GLM counts them by the model that answered.", "GLM 按实际回答的模型统计。";
    usage_missing: "usage missing", "缺少用量";
    usage_missing_about: "The answers did not tell their tokens, or told them in part.", "回答未给出令牌数，或不完整。";
    not_ours: "not ours", "非本机调用";
    not_ours_about: "Another program has the key, or another store of ours.", "其他程序或其他存储使用了同一密钥。";
    not_metered: "not metered", "未统计";
    not_metered_about: "GLM did not count what it answered.", "GLM 未统计其已回答的调用。";
    quota: "Quota", "额度";
    balance: "balance", "余额";
    // Models.
    today: "today", "今天";
    days: "{} days", "{} 天";
    spread: "How long answers took: p50 ● p90 ○ p99 |", "响应时间：p50 ● p90 ○ p99 |";
    most_answers: "p90 · p99", "p90 · p99（响应）";
    tokens_per_second: "tokens per second", "每秒令牌数";
    no_speed: "Not measured: no answer of these days had tokens and a time, or a version counted them that did not measure this.", "未测量：这些天的回答没有令牌或用时，或由尚不统计此项的版本记录。";
    no_first_token: "Not measured: no answer of these days was streamed, or a version counted them that did not measure this.", "未测量：这些天没有流式回答，或由尚不统计此项的版本记录。";
    per_second: "{}/s", "{}/秒";
    half_first_token: "first token, p50", "首个令牌 p50";
    most_first_tokens: "p90 · p99", "p90 · p99（首个令牌）";
    per_second_about: "The first token is that of streamed answers. Tokens per second: those behind the first in the time behind it; of answers that were not streamed, all of them in the time of the whole call.", "首个令牌仅统计流式回答。每秒令牌数：首个令牌之后的令牌数除以其后的用时；非流式回答为全部令牌数除以整个调用的用时。";
    cost_per_answer: "cost per answer", "每次回答费用";
    failed_percent: "failed", "失败率";
    failures: "why", "原因";
    more_models: "{} more models", "还有 {} 个模型";
    class_throttle: "throttled", "限流";
    class_overload: "overloaded", "过载";
    class_quota: "quota used up", "额度用完";
    class_operator: "operator must act", "需要操作员处理";
    class_request: "the job's own fault", "任务自身错误";
    class_server: "server or network", "服务器或网络";
    class_unreachable: "unreachable", "无法连接";
    class_unattributed: "refused without a code", "无错误码的拒绝";
    class_duplicate: "request id seen before", "请求 ID 重复";
    class_foreign: "another call's answer", "其他调用的回答";
    // Budgets.
    spent: "spent", "已用";
    limit: "limit", "上限";
    reserved: "reserved", "已预留";
    left: "left", "剩余";
    beyond: "beyond it", "超出时";
    renewed: "anew", "重置";
    over_wait: "jobs wait", "任务等待";
    over_refuse: "new jobs are refused", "拒绝新任务";
    over_warn: "it is only told", "仅提醒";
    budget_fine: "room", "充足";
    budget_warned: "nearly used up", "即将用完";
    budget_short: "no room", "不足";
    budgets_set: "Budgets are set in the settings of money, those of client keys with their keys.", "预算在 money 配置中设置，客户端密钥的预算随密钥设置。";
    more_budgets: "{} more accounts, with more room", "还有 {} 个账户，余量更多";
    // Holds and the breaker.
    nothing_held: "Nothing is held.", "没有挂起。";
    ends: "Ends by itself", "将自动解除：";
    breaker: "Breaker", "熔断器";
    breaker_closed: "closed", "已关闭";
    breaker_half_open: "one call probes", "探测中";
    breaker_reset: "Close the breaker", "关闭熔断器";
    failures_in_window: "{} of {} calls in its window failed, {} in a row.", "窗口内 {} / {} 次调用失败，连续失败 {} 次。";
    probes: "Tries again", "将重试：";
    // Calls.
    no_call_matches: "No call matches.", "没有匹配的调用。";
    go_on: "None among those that were looked at; go on with older ones.", "已查找的部分没有匹配，可继续查找更早的。";
    not_billed: "Was not billed", "未计费";
    // Slots.
    slot: "slot", "槽位";
    slots_say: "{} slots were held in {}; {} calls may be open now.", "共使用 {} 个槽位，时段 {}；当前最多 {} 个并发调用。";
    no_slots: "Nobody held a slot in that time.", "该时段没有占用槽位。";
    what_slots_were: "What they were", "槽位状态";
    who_held: "Who held them", "占用者";
    slot_answered: "answered", "已回答";
    slot_cooled: "cooled down", "冷却";
    slot_waited: "free while a job waited: pace, hold, breaker or pause", "空闲但有任务等待：限速、挂起、熔断或暂停";
    slot_idle: "idle, nobody there", "空闲，没有任务";
    mostly: "mostly:", "主要：";
    latest_calls_only: "Of the latest {} calls alone.", "仅最近 {} 次调用。";
    more_slots: "{} more slots are not drawn.", "另有 {} 个槽位未画出。";
    // Batches.
    no_batches: "There are no batches.", "没有批次。";
    batch_validating: "lines are looked through", "正在检查";
    batch_failed: "lines are wrong", "输入有误";
    batch_open: "more jobs may come", "可继续添加任务";
    batch_running: "running", "运行中";
    batch_completed: "done", "已完成";
    batch_expired: "time was over", "已超时";
    batch_cancelling: "being given up", "正在取消";
    batch_cancelled: "given up", "已取消";
    batch_cancel_asks: "Give the batch up? Its jobs that wait or run are cancelled.", "取消该批次？等待或运行中的任务将被取消。";
    at_this_pace: "about {} left at this pace", "按当前速度约剩 {}";
    line: "line", "第几行：";
    answers: "Answers", "回答";
    errors: "Errors", "错误";
    // Keys.
    no_keys: "There are no client keys.", "没有客户端密钥。";
    secret_once: "This is the key. It is shown this once: copy it now.", "这是密钥，仅显示一次，请立即复制。";
    role: "role", "角色";
    role_client: "client", "客户端";
    rights: "rights", "权限";
    no_bound: "no bound", "不限";
    says_itself: "as its jobs say", "由任务指定";
    at_once: "{} calls at once", "并发 {}";
    a_minute: "{} jobs a minute", "每分钟 {} 个任务";
    key_live: "opens", "有效";
    key_expired: "expired", "已过期";
    key_revoked: "revoked", "已吊销";
    rotated: "replaced", "已更换";
    change: "Change…", "更改…";
    overlap: "The old one opens for (h)", "旧密钥继续有效（小时）";
    rotate: "Replace its secret", "更换密钥";
    revoke: "Revoke", "吊销";
    revoke_asks: "Revoke this key? It opens nothing any more.", "吊销该密钥？此后将无法使用。";
    new_key: "A new key", "新密钥";
    max_priority: "Highest priority", "最高优先级";
    calls_at_once: "Calls at once", "并发调用数";
    jobs_a_minute: "Jobs a minute", "每分钟任务数";
    expires_in: "Expires in (h)", "有效期（小时）";
    faces: "Faces; none: all of them", "接口；不选即全部";
    create_key: "Make the key", "创建密钥";
    // Alerts and webhooks.
    no_alerts: "Nothing is wrong.", "没有告警。";
    alerts_over: "Those that are over", "已恢复的告警";
    alerts_set: "What raises an alert is set in the settings of alerts.", "告警规则在 alerts 配置中设置。";
    endpoints: "Endpoints", "端点";
    no_endpoints: "None is configured: webhooks.endpoints in config.toml.", "未配置端点：请在 config.toml 中设置 webhooks.endpoints。";
    endpoint_on: "told", "正常";
    endpoint_off: "off: it said that it is gone", "已停用：对方返回已不存在";
    endpoint_missing: "configured no more", "已不在配置中";
    site: "site", "站点";
    told_of: "told of", "通知内容";
    test: "Test", "测试";
    test_all: "Test all", "全部测试";
    deliveries: "Deliveries", "投递";
    no_deliveries: "Nothing was told.", "没有投递。";
    event: "event", "事件";
    receiver: "to", "接收方";
    tries: "tries", "尝试次数";
    on_its_way: "on its way", "投递中";
    delivered: "arrived", "已送达";
    given_up: "given up", "已放弃";
    send_again: "Send again", "重新投递";
    redeliver_all: "Send all that were given up again", "重新投递所有已放弃的";
    redeliver_asks: "Send all that were given up again?", "重新投递所有已放弃的通知？";
    // Settings.
    setting: "setting", "配置项";
    before: "before", "之前";
    after: "after", "之后";
    default_is: "Default: {}.", "默认值：{}。";
    as_below: "as file or default says", "按文件或默认值";
    changed_here: "changed while running", "运行时修改";
    fixed_by: "outweighed by {}: what is saved here waits for a start without it", "被 {} 覆盖：此处的修改在去掉它重启后才生效";
    blank_takes_back: "What is left blank is as file or default says. Nothing is changed before you have seen the differences.", "留空即使用文件或默认值。确认差异之前不会做任何更改。";
    look_at_change: "Look at the differences", "查看差异";
    this_would_change: "This would change", "将做以下更改";
    nothing_changes: "Nothing: that is in force already.", "没有变化，当前已是如此。";
    stored_not_in_force: "Stored, but not in force:", "已保存但不生效：";
    changed_meanwhile: "Somebody changed settings meanwhile. Look at them again before you save yours.", "配置已被他人修改，请重新确认后再保存。";
    save: "Save", "保存";
    leave_it: "Leave it", "放弃";
    new_api_key: "New key", "新密钥";
    replace_key: "Replace the key", "更换密钥";
    fixed_settings: "Changed by a restart alone", "需要重启才能更改";
    history: "What was changed", "更改历史";
    no_history: "Nothing was changed while running.", "运行期间没有更改。";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_has_both_texts_with_the_same_places() {
        super::super::words::check_both(Terms::ALL);
    }
}
