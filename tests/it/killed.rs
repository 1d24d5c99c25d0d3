//! Guards: clients that are killed in the middle of a stream, at any piece of it. With a key they come back and miss
//! nothing, for one call; without one their call ends with them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use onelane::model::{CallOutcome, JobStatus};

use crate::streams::{DONE, HEAD, chat, chunk, job_of, last, open, open_keyed, piece, read, rest};
use crate::support::api::Api;
use crate::support::http::{HttpLane, ended, stop};
use crate::support::upstream::{Arrived, Upstream};

/// Pieces of a stream.
const PIECES: usize = 1_000;
/// Streams at once: each is cut behind other pieces.
const STREAMS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_key_that_is_killed_at_any_piece_comes_back_to_the_same_bytes_for_one_call()
{
    let (tells, told): (Vec<Sender<String>>, Vec<Receiver<String>>) =
        (0..STREAMS).map(|_| channel()).unzip();
    let told = told.into_iter().enumerate();
    let told: HashMap<String, Receiver<String>> =
        told.map(|(n, told)| (n.to_string(), told)).collect();
    let told = Mutex::new(told);
    let upstream = Upstream::start(move |mut call: Arrived<'_>| {
        let told = told.lock().unwrap().remove(call.prompt());
        let told = told.expect("each stream is asked for once");
        call.say(HEAD);
        while let Ok(text) = told.recv() {
            call.say(chunk(&text));
            if text.is_empty() {
                return;
            }
        }
    });
    let mut world = HttpLane::new();
    world.config.glm.base_url = upstream.base_url();
    world.config.lane.rules.max_concurrency = STREAMS as u16;
    let lane = world.start().await;
    let api = std::sync::Arc::new(Api::serve(&lane).await);
    let begun = Instant::now();
    let streams = tells.into_iter().enumerate().map(|(stream, tell)| {
        let api = std::sync::Arc::clone(&api);
        tokio::spawn(async move {
            let (asked, key) = (chat(&stream.to_string()), format!("key {stream}"));
            let mut uninterrupted = None;
            let mut so_far = String::new();
            for n in 0..PIECES {
                let event = piece(&n.to_string());
                tell.send(event.clone()).unwrap();
                so_far.push_str(&event);
                if n % STREAMS != stream {
                    continue;
                }
                let mut client = open_keyed(&api, &asked, &key).await;
                assert_eq!(client.status(), 200);
                let came = read(&mut client, &event).await;
                assert!(came == so_far, "killed at {n}: {came}");
                // One of them stays.
                if uninterrupted.is_none() {
                    uninterrupted = Some((client, came));
                }
            }
            let end = format!("{}{DONE}", last());
            tell.send(end.clone()).unwrap();
            tell.send(String::new()).unwrap();
            so_far.push_str(&end);
            let (client, came) = uninterrupted.unwrap();
            assert!(came + &rest(client).await == so_far, "uninterrupted");
            let back = open_keyed(&api, &asked, &key).await;
            assert!(rest(back).await == so_far, "after its end");
        })
    });
    for stream in streams.collect::<Vec<_>>() {
        stream.await.unwrap();
    }
    println!("{PIECES} times killed, in {:?}", begun.elapsed());
    assert_eq!(upstream.seen().len(), STREAMS, "one call each");
    drop(api);
    stop(lane, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_call_of_a_client_without_a_key_ends_a_tenth_of_a_second_after_it_and_is_booked() {
    let world = HttpLane::new();
    let lane = world.start().await;
    let api = Api::serve(&lane).await;
    let mut took = Vec::new();
    for n in 0..5 {
        let asked = chat(&format!("long {n} [[sim pieces=100000 piece_ms=5]]"));
        let mut client = open(&api, &asked).await;
        let id = job_of(&client);
        client.chunk().await.unwrap().expect("a piece");
        world.until_in_flight(1).await;
        drop(client);
        let gone = Instant::now();
        world.until_in_flight(0).await;
        took.push(gone.elapsed());
        ended(&lane, id, JobStatus::Cancelled).await;
        let attempts = lane.job(id).await.unwrap().attempts;
        assert_eq!(attempts[0].outcome, CallOutcome::Cancelled);
        let usage = attempts[0].usage;
        assert!(usage.estimated && usage.completion_tokens > 0, "{usage:?}");
        assert!(attempts[0].cost.is_some() && !attempts[0].maybe_billed);
    }
    // A machine that has other things to do is slower at times.
    let best = took.iter().min().unwrap();
    assert!(*best < Duration::from_millis(100), "{took:?}");
    assert!(rest(open(&api, &chat("next")).await).await.ends_with(DONE));
    drop(api);
    stop(lane, 1_000).await;
}
