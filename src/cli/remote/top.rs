//! `onelane top`: the lane as it goes, until a key or a signal. The terminal is whole afterwards, however it ends.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;
use tokio::sync::mpsc;

use super::client::Daemon;
use super::jobs::waiter_cells;
use super::status::{self, Seen, call_cells};
use super::words::{clock, now};
use crate::cli::args::remote::TopArgs;
use crate::cli::exit::{CliError, Exit};
use crate::cli::start;
use crate::cli::table::fitting_in;
use crate::telemetry::Signals;

/// Jobs of the queue that are looked at; what finds no room is not shown.
const NEXT: usize = 50;
/// How long the thread that reads keys waits for one before it looks whether it shall end.
const KEY_WITHIN: Duration = Duration::from_millis(100);

/// Shows the lane until it is told to stop. For programs a document a look.
pub(super) async fn top(args: &TopArgs, daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let mut signals = Signals::install().map_err(start::no_signals)?;
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !json && !is_terminal {
        return Err(CliError::usage("top needs a terminal").help(
            "`onelane status` says the same once; `onelane top --json` prints it again and again",
        ));
    }
    // Who can't be asked is told so on a terminal that nothing was done to.
    let first = status::look(daemon, NEXT).await?;
    match json {
        true => documents(first, args, daemon, &mut signals).await,
        false => {
            let mut screen = Screen::begin()?;
            let end = show(first, args, daemon, &mut signals, &mut screen).await;
            drop(screen);
            end
        }
    }
}

async fn documents(
    mut seen: Seen,
    args: &TopArgs,
    daemon: &Daemon,
    signals: &mut Signals,
) -> Result<Exit, CliError> {
    let mut told = 0;
    loop {
        crate::cli::say(&seen.document())?;
        told += 1;
        if args.limit.is_some_and(|limit| told >= limit) {
            return Ok(Exit::Done);
        }
        tokio::select! {
            () = tokio::time::sleep(args.every) => {}
            _ = signals.next() => return Ok(Exit::Done),
        }
        seen = status::look(daemon, NEXT).await?;
    }
}

/// The terminal while it is ours. Dropped, it is as it was; a panic gives it back before it is told.
struct Screen {
    terminal: ratatui::DefaultTerminal,
    keys: mpsc::Receiver<Key>,
    is_over: Arc<AtomicBool>,
}

/// What somebody pressed, as far as it means anything here.
enum Key {
    Quit,
    Redraw,
}

impl Screen {
    fn begin() -> Result<Self, CliError> {
        let terminal = ratatui::try_init().map_err(|error| {
            CliError::usage(format!("the terminal can't be drawn on: {error}"))
                .help("`onelane status` says the same once")
        })?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (sender, keys) = mpsc::channel(16);
        let over = Arc::clone(&is_over);
        // The system has no way to be asked for a key and to be told to stop waiting for one.
        std::thread::spawn(move || {
            while !over.load(Ordering::Acquire) {
                let key = match event::poll(KEY_WITHIN) {
                    Ok(true) => event::read().ok().and_then(key),
                    Ok(false) => None,
                    Err(_) => Some(Key::Quit),
                };
                if let Some(key) = key
                    && sender.blocking_send(key).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self {
            terminal,
            keys,
            is_over,
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        ratatui::restore();
    }
}

fn key(event: Event) -> Option<Key> {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
            _ => None,
        },
        Event::Resize(..) => Some(Key::Redraw),
        _ => None,
    }
}

async fn show(
    mut seen: Seen,
    args: &TopArgs,
    daemon: &Daemon,
    signals: &mut Signals,
    screen: &mut Screen,
) -> Result<Exit, CliError> {
    let mut trouble: Option<String> = None;
    let mut looks = 0;
    loop {
        let drawn = screen
            .terminal
            .draw(|frame| draw(frame, &seen, daemon.url(), trouble.as_deref()));
        drawn.map_err(|error| {
            CliError::new(
                Exit::JobsFailed,
                format!("the terminal can't be drawn on: {error}"),
            )
        })?;
        looks += 1;
        if args.limit.is_some_and(|limit| looks >= limit) {
            return Ok(Exit::Done);
        }
        let looked = tokio::select! {
            _ = signals.next() => return Ok(Exit::Done),
            key = screen.keys.recv() => match key {
                Some(Key::Redraw) => continue,
                Some(Key::Quit) | None => return Ok(Exit::Done),
            },
            looked = async {
                tokio::time::sleep(args.every).await;
                status::look(daemon, NEXT).await
            } => looked,
        };
        // A daemon that is started anew is back in a moment; what was seen last stays.
        match looked {
            Ok(new) => (seen, trouble) = (new, None),
            Err(error) => trouble = Some(error.message),
        }
    }
}

fn draw(frame: &mut Frame<'_>, seen: &Seen, url: &str, trouble: Option<&str>) {
    let area = frame.area();
    let width = usize::from(area.width);
    let now = now();
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(
        format!("onelane  {url}  {}  q ends", clock(now, now)),
        strong,
    )];
    if let Some(trouble) = trouble {
        lines.push(Line::styled(
            trouble.to_owned(),
            Style::new().fg(Color::Red),
        ));
    }
    lines.push(Line::default());
    for line in status::text(seen, now).lines() {
        let word = line.split(' ').next().unwrap_or_default();
        let style = match word {
            "held" | "breaker" => Style::new().fg(Color::Red),
            "paused" | "drain" | "waits" | "alert" | "doubt" => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        lines.push(Line::styled(line.to_owned(), style));
    }
    let mut table = |head: &str, text: String| {
        lines.push(Line::default());
        for (at, line) in text.lines().enumerate() {
            let style = if at == 0 { strong } else { Style::new() };
            lines.push(Line::styled(line.to_owned(), style));
        }
        if text.is_empty() {
            lines.push(Line::raw(format!("no {head}")));
        }
    };
    // Half of what is left for each of the two.
    let room = usize::from(area.height).saturating_sub(14) / 2;
    let room = room.max(3);
    let jobs = seen.next.queue.iter().take(room);
    let jobs: Vec<_> = jobs.map(|job| waiter_cells(job, now)).collect();
    let head = ["JOB", "USER", "PRIORITY", "WAITED", "WHY", "ENDS"];
    table(
        "job waits",
        when_some(&jobs, |rows| fitting_in(head, rows, width)),
    );
    let calls = seen.metrics.recent_calls.iter().take(room);
    let calls: Vec<_> = calls.map(|call| call_cells(call, now)).collect();
    let head = [
        "ENDED", "JOB", "USER", "MODEL", "TOOK", "TOKENS", "COST", "END",
    ];
    table(
        "call yet",
        when_some(&calls, |rows| fitting_in(head, rows, width)),
    );
    frame.render_widget(Paragraph::new(Text::from(lines)), area);
}

fn when_some<T>(rows: &[T], text: impl FnOnce(&[T]) -> String) -> String {
    match rows.is_empty() {
        true => String::new(),
        false => text(rows),
    }
}
