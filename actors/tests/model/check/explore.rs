//! Goes through every state that a world can come to.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan::Plan;
use super::seen::Broken;
use super::step::Step;
use super::world::World;

/// Which state is looked at next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The nearest: the way to a broken promise is as short as can be.
    Nearest,
    /// The latest: what is still to be looked at takes little memory.
    Latest,
}

/// All of it was gone through, and every promise holds.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) states: u64,
    pub(crate) steps: u64,
    /// Worlds in which nothing is left to be done.
    pub(crate) ends: u64,
    /// Steps on the longest way that was gone.
    pub(crate) depth: u32,
    pub(crate) took: Duration,
}

/// A promise does not hold, and how it came to that.
#[derive(Debug)]
pub(crate) struct Counterexample {
    pub(crate) broken: Broken,
    pub(crate) way: Vec<Step>,
    pub(crate) states: u64,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            steps,
            ends,
            depth,
            took,
        } = self;
        let seconds = took.as_secs_f64();
        write!(
            f,
            "{states} states, {steps} steps, {ends} ends, depth {depth}, {seconds:.1} s"
        )
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.states;
        writeln!(f, "{} (after {states} states)", self.broken)?;
        self.way
            .iter()
            .try_for_each(|step| writeln!(f, "  {step:?}"))
    }
}

/// The steps to a state, the last first.
#[derive(Debug)]
struct Way {
    step: Step,
    before: Option<Arc<Way>>,
}

fn steps_of(mut way: Option<&Arc<Way>>) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(last) = way {
        steps.push(last.step);
        way = last.before.as_ref();
    }
    steps.reverse();
    steps
}

/// A state by 64 bits of its imprint, as model checkers do. 0 is none.
fn mark(world: &World, words: &mut String) -> u64 {
    words.clear();
    // Writing to a string does not fail.
    let _ = world.imprint(words);
    let mut hasher = DefaultHasher::new();
    hasher.write(words.as_bytes());
    hasher.finish().max(1)
}

struct Visit {
    world: World,
    mark: u64,
    way: Option<Arc<Way>>,
    depth: u32,
}

/// Goes through every state; `seen`: how far it is, now and then.
pub(crate) fn explore(
    plan: &Plan,
    order: Order,
    mut seen: impl FnMut(u64, usize),
) -> Result<Explored, Counterexample> {
    let begun = Instant::now();
    let mut words = String::new();
    let fault = |broken: Broken, way: Option<&Arc<Way>>, states: usize| Counterexample {
        broken,
        way: steps_of(way),
        states: states as u64,
    };
    let first = World::new(plan.clone()).map_err(|broken| fault(broken, None, 0))?;
    let first_mark = mark(&first, &mut words);
    // Of each state the one that follows when the world is left alone; 0: it has ended.
    let mut follows: HashMap<u64, u64> = HashMap::from([(first_mark, 0)]);
    let mut frontier = VecDeque::from([Visit {
        world: first,
        mark: first_mark,
        way: None,
        depth: 0,
    }]);
    let (mut steps, mut ends, mut depth) = (0, 0, 0);
    loop {
        let next = match order {
            Order::Nearest => frontier.pop_front(),
            Order::Latest => frontier.pop_back(),
        };
        let Some(visit) = next else { break };
        depth = depth.max(visit.depth);
        let may_follow = visit.world.steps();
        if may_follow.is_empty() {
            ends += 1;
            let end = visit.world.check_end();
            end.map_err(|broken| fault(broken, visit.way.as_ref(), follows.len()))?;
        }
        for (number, step) in may_follow.into_iter().enumerate() {
            steps += 1;
            let mut world = visit.world.clone();
            let way = Arc::new(Way {
                step,
                before: visit.way.clone(),
            });
            let taken = world.take(step);
            taken.map_err(|broken| fault(broken, Some(&way), follows.len()))?;
            let to = mark(&world, &mut words);
            if number == 0 {
                follows.insert(visit.mark, to);
            }
            let states = follows.len() as u64;
            if let Entry::Vacant(new) = follows.entry(to) {
                new.insert(0);
                if states.is_multiple_of(100_000) {
                    seen(states, frontier.len());
                }
                frontier.push_back(Visit {
                    world,
                    mark: to,
                    way: Some(way),
                    depth: visit.depth + 1,
                });
            }
        }
    }
    if let Some(stuck) = endless(&follows) {
        return Err(way_to(plan, stuck, follows.len()));
    }
    Ok(Explored {
        states: follows.len() as u64,
        steps,
        ends,
        depth,
        took: begun.elapsed(),
    })
}

/// A state from which a world that is left alone never ends.
fn endless(follows: &HashMap<u64, u64>) -> Option<u64> {
    let mut good: HashSet<u64> = HashSet::from([0]);
    let mut on_way = HashSet::new();
    for first in follows.keys() {
        let mut at = *first;
        on_way.clear();
        while !good.contains(&at) {
            if !on_way.insert(at) {
                return Some(*first);
            }
            at = *follows.get(&at)?;
        }
        good.extend(&on_way);
    }
    None
}

/// The shortest way to a state from which nothing goes on.
fn way_to(plan: &Plan, stuck: u64, states: usize) -> Counterexample {
    let mut words = String::new();
    let mut frontier = VecDeque::new();
    let mut known = HashSet::new();
    frontier.extend(World::new(plan.clone()).map(|first| (first, None)));
    while let Some((world, way)) = frontier.pop_front() {
        let at = mark(&world, &mut words);
        if at == stuck {
            return Counterexample {
                broken: "nothing goes on, and not all jobs have ended".to_owned(),
                way: steps_of(way.as_ref()),
                states: states as u64,
            };
        }
        if !known.insert(at) {
            continue;
        }
        for step in world.steps() {
            let mut next = world.clone();
            if next.take(step).is_ok() {
                let before = way.clone();
                frontier.push_back((next, Some(Arc::new(Way { step, before }))));
            }
        }
    }
    Counterexample {
        broken: "nothing goes on in a state that was not found again".to_owned(),
        way: Vec::new(),
        states: states as u64,
    }
}
