//! A report for people.

use std::{fmt, time::Duration};

use valtronics_protocol::{counters::HeldBack, time::UnixMillis};

use super::Report;
use crate::{tally::Tally, uplink::Link};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, time, uplink, account, balanced } = self;
        let totals = &account.totals;
        let up = ago(*time, totals.since);
        writeln!(f, "{name}, valtronics-agent {version}, running for {up}")?;
        write_link(f, uplink, *time)?;
        for (source, tally) in &account.sources {
            write_source(f, source, tally)?;
        }
        writeln!(f, "read          {}", totals.read)?;
        writeln!(f, "  held back   {}{}", totals.held_back.sum(), causes(&totals.held_back))?;
        writeln!(f, "  queued      {}", totals.queued)?;
        if totals.carried_over > 0 {
            writeln!(f, "  from before {}", totals.carried_over)?;
        }
        writeln!(f, "acknowledged  {}", totals.acknowledged)?;
        writeln!(f, "evicted       {} (the queue was full)", totals.evicted)?;
        write!(f, "waiting       {}", totals.waiting)?;
        match totals.oldest {
            Some(oldest) => writeln!(f, ", the oldest for {}", ago(*time, oldest))?,
            None => writeln!(f)?,
        }
        writeln!(f, "sent          {}, {} sent again", totals.sent, totals.sent_again)?;
        let (waiting, evicted) = (totals.events_waiting, totals.events_evicted);
        writeln!(f, "status events {waiting} waiting, {evicted} evicted")?;
        f.write_str(if *balanced { "the sums balance\n" } else { "THE SUMS DO NOT BALANCE\n" })
    }
}

fn write_link(f: &mut fmt::Formatter<'_>, link: &Link, now: UnixMillis) -> fmt::Result {
    let since = ago(now, link.since);
    let why = link.last_error.as_deref();
    match (link.connected, why) {
        (true, None) => writeln!(f, "connected for {since}")?,
        (true, Some(why)) => writeln!(f, "connected for {since}; before: {why}")?,
        (false, None) => writeln!(f, "not connected yet")?,
        (false, Some(why)) => writeln!(f, "not connected for {since}: {why}")?,
    }
    if let Some(at) = link.next_try {
        writeln!(f, "next try in {}", ago(at, now))?;
    }
    match link.clock_offset_ms {
        Some(offset) => writeln!(f, "clock {offset:+} ms against the server's"),
        None => Ok(()),
    }
}

fn write_source(f: &mut fmt::Formatter<'_>, name: &str, tally: &Tally) -> fmt::Result {
    let Tally { good, damaged, foreign, read, held_back, queued } = tally;
    let causes = causes(held_back);
    writeln!(
        f,
        "{name}: {good} good, {damaged} damaged, {foreign} foreign; \
         {read} read, {} held back{causes}, {queued} queued",
        held_back.sum()
    )
}

/// Names the causes that there were, in brackets.
fn causes(held_back: &HeldBack) -> String {
    let HeldBack { skip, every, deadband, unfit, retained } = *held_back;
    let causes = [
        ("skip", skip),
        ("every", every),
        ("deadband", deadband),
        ("unfit", unfit),
        ("retained", retained),
    ];
    let named = causes.into_iter().filter(|(_, count)| *count > 0);
    let named: Vec<String> = named.map(|(cause, count)| format!("{cause} {count}")).collect();
    if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) }
}

/// Says in one unit how long it is from one moment to another.
fn ago(now: UnixMillis, then: UnixMillis) -> String {
    let passed: Duration = now.since(then);
    match passed.as_secs() {
        0..120 => format!("{} s", passed.as_secs()),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
