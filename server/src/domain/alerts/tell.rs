//! Transitions as events: who, how bad, and one sentence.

use std::sync::Arc;

use valtronics_protocol::{
    event::{AlertStatus, Severity},
    id::DeviceId,
    time::UnixMillis,
};

use super::watch::{FLAP_WINDOW, Open, Watch};
use crate::{
    commit::{AlertDraft, AlertKey},
    domain::{
        rule::{Rule, Tale},
        status::spoken,
    },
};

/// Makes the event of a transition.
pub(super) fn draft(rule: &Rule, device: DeviceId, open: Open, watch: &Watch) -> AlertDraft {
    let told = rule.kind.tell(Tale {
        metric: &rule.metric,
        severity: open.severity,
        resolved: open.status == AlertStatus::Resolved,
        actual: watch.memory.actual.as_ref(),
        hold: rule.hold.length,
        lasted: watch.lasted(),
    });
    let sentence = rule.message.as_deref().unwrap_or(&told.sentence);
    let message = if open.damped && open.status != AlertStatus::Resolved {
        let quiet = spoken(FLAP_WINDOW);
        format!("{sentence} (it comes and goes: held until it has been quiet for {quiet})").into()
    } else {
        sentence.into()
    };
    AlertDraft {
        key: AlertKey { rule: Arc::clone(&rule.name), device, metric: Arc::clone(&rule.metric) },
        alert_type: rule.kind.name().into(),
        status: open.status,
        severity: open.severity,
        title: Arc::clone(&rule.title),
        message,
        at: open.at,
        threshold: told.threshold,
        actual: told.actual,
    }
}

/// Ends an alert whose rule is gone, or another one, if there is an alert.
pub(super) fn ended(
    rule: &Rule,
    gone: &str,
    device: DeviceId,
    watch: &Watch,
    now: UnixMillis,
) -> Option<AlertDraft> {
    let open = Open { status: AlertStatus::Resolved, at: now, ..watch.unresolved()? };
    let message = format!("Rule {} was {gone}", rule.name).into();
    Some(AlertDraft { message, ..draft(rule, device, open, watch) })
}

/// Ends an alert whose rule is gone since the server stopped.
pub(super) fn orphaned(
    key: AlertKey,
    alert_type: Arc<str>,
    severity: Severity,
    now: UnixMillis,
) -> AlertDraft {
    AlertDraft {
        alert_type,
        status: AlertStatus::Resolved,
        severity,
        title: Arc::clone(&key.rule),
        message: format!("Rule {} was changed or deleted", key.rule).into(),
        at: now,
        threshold: None,
        actual: None,
        key,
    }
}
