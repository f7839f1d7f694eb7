//! Scenarios that every runtime adapter has to pass, over real sockets on loopback.
//!
//! [`conformance_tests!`](crate::conformance_tests) makes one test of each scenario; both adapters call it
//! unchanged. Scenarios are functions of a runtime, so that one can also be run by itself.

mod api;
mod batch;
mod bodies;
mod datagrams;
mod entry;
mod faults;
mod frames;
mod front;
mod hired;
mod hostile;
mod life;
mod machines;
mod pace;
mod requests;
mod shared;
mod silence;
mod trickle;
mod trust;
mod upgrades;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, Write};
use livepeer_core::EffectId;
use livepeer_core::http::{
    self, Body, Fault, Headers, In, Method, Out, Protocol, Request, Trust, Url,
};
use rustls::ServerConfig;

use crate::http::Server;
use crate::rt::Runtime;
use crate::tls::Identity;
use crate::{Driver, Handle};

pub use api::*;
pub use batch::*;
pub use bodies::*;
pub use datagrams::*;
pub use entry::*;
pub use faults::*;
pub use front::*;
pub use hired::*;
pub use hostile::*;
pub use life::*;
pub use machines::{Habits, Script};
pub use requests::*;
pub use shared::*;
pub use silence::*;
pub use trickle::*;
pub use trust::*;
pub use upgrades::*;

/// How long a scenario may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes one test per scenario. `$runtime` makes a runtime, `$block_on` runs a future to its end.
#[macro_export]
macro_rules! conformance_tests {
    ($runtime:expr, $block_on:expr) => {
        $crate::conformance_tests! {
            $runtime, $block_on;
            a_streamed_upload_arrives_whole_over_tls
            datagrams_go_both_ways
            a_datagram_that_cannot_be_sent_ends_nothing
            a_task_that_waits_for_a_datagram_can_be_dropped
            a_front_door_refuses_what_no_machine_could_answer
            a_front_door_gives_leave_to_send_only_what_it_will_read
            a_front_door_speaks_both_versions_of_http
            a_front_door_has_room_for_so_many_connections_of_one_address
            a_front_door_with_tls_tells_so_and_changes_its_certificate
            a_front_door_listens_at_a_unix_socket
            a_request_with_two_lengths_ends_its_connection
            a_streamed_download_arrives_whole_over_tls
            both_directions_stream_at_once_over_every_protocol
            a_unary_call_over_http2_has_trailers
            streamed_answers_share_a_connection
            a_peer_without_http2_is_asked_over_http1
            further_streams_have_another_connection
            what_a_peer_did_not_look_at_goes_once_more
            a_shared_connection_that_breaks_takes_its_streams_along
            those_who_wait_for_a_connection_hear_of_it
            an_early_reply_is_delivered_while_the_upload_goes_on
            an_early_reply_survives_the_reset_that_follows_it
            an_early_reply_of_ours_is_followed_by_no_reset
            every_chunk_is_flushed_as_it_comes
            pause_stops_one_exchange_and_resume_goes_on
            nobody_reading_events_bounds_memory
            sent_follows_what_the_peer_takes
            a_write_that_had_to_wait_wakes_its_task
            a_thousand_exchanges_reuse_connections
            a_stale_connection_is_replaced_unnoticed
            connection_close_is_honoured
            large_heads_pass_and_larger_ones_are_refused
            unusual_statuses_pass
            a_changed_certificate_is_refused_on_every_kind_of_connection
            afresh_forgets_what_was_remembered
            a_certificate_accepted_anew_closes_what_the_old_one_opened
            public_trust_wants_a_known_root
            what_a_peer_names_is_not_dialled_on_this_machine
            pins_hold_for_odd_names
            an_exchange_that_leaves_http_carries_bytes_both_ways
            a_client_made_by_hand_leaves_http
            a_wish_to_leave_http_that_is_not_granted_changes_nothing
            bytes_beyond_http_are_held_back
            an_abort_closes_a_connection_that_left_http
            nobody_leaves_http_unasked
            refused_connections_and_unknown_names_are_told_apart
            a_peer_without_tls_is_named
            a_peer_without_http2_is_named
            a_peer_that_is_no_http_server_is_named
            a_peer_that_breaks_mid_body_is_noticed
            a_client_that_breaks_mid_body_is_noticed
            a_waiting_client_that_leaves_is_noticed
            garbage_gets_a_status_and_nothing_else
            a_host_does_not_choose_the_path
            hostile_sockets_disturb_no_channel
            a_task_that_waits_again_waits_once
            dropping_the_handle_closes_everything
            timers_fire_in_order_and_not_early
            signatures_and_records_are_answered
            a_store_that_fails_answers_too
            all_machines_of_a_driver_spend_from_one_limit
            an_amount_that_nobody_waits_for_is_given_back
            a_store_that_hangs_holds_a_bounded_number_of_records
            shutdown_lets_exchanges_end
            an_abort_closes_the_connection
            dead_connections_are_left_with_the_exchange_that_found_out
            a_silent_http2_connection_is_found_dead
            an_idle_http2_connection_is_asked_whether_it_lives
            a_connection_may_be_idle_after_any_request
            a_small_body_is_read_after_an_early_answer
            a_reader_that_takes_nothing_is_let_go
            a_channel_carries_every_byte
            a_channel_survives_cut_connections
            a_renewal_brings_a_word_that_came_after_the_call
            payments_are_made_and_counted_whoever_listens
            a_payment_that_nobody_wants_any_more_locks_nothing
            a_payment_session_says_why_it_ended
            work_with_an_own_key_begins_with_the_nonces_that_were_used
            parameters_are_updated_and_the_orchestrator_has_them
            a_runner_that_dies_behind_its_orchestrator_costs_no_segment
            output_and_events_are_streams
            mpeg_ts_is_cut_and_comes_back
            a_job_runs_against_a_session
            jobs_of_one_kind_share_their_sessions
            jobs_of_one_kind_look_for_orchestrators_once
            anything_can_be_dropped_anywhere
            a_stream_by_rtmp_goes_through_a_model
            frames_that_are_pushed_by_rtmp_arrive
            what_a_stream_sent_last_arrives
            publishers_that_are_no_good_disturb_no_other
            a_stream_by_whip_goes_through_a_model_to_whep
            a_batch_job_is_answered_and_paid
            a_model_is_warmed_up_before_its_first_job
            a_stream_is_held_back_and_loses_no_chunk
            a_job_that_is_dropped_disturbs_no_other
            bad_requests_and_unknown_models_are_said
            every_pipeline_has_a_struct_and_files_are_measured
            a_session_does_jobs_that_are_written_as_json
            a_container_answers_streams_and_is_left
            an_app_is_listed_called_and_held
            hired_work_is_paid_through_a_signer
            media_stream_through_a_container
            a_runner_is_rented_out_until_it_leaves
            apps_are_reached_beyond_http
        }
    };
    ($runtime:expr, $block_on:expr; $($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                $block_on(async { $crate::conformance::run($crate::conformance::$name, $runtime).await });
            }
        )+
    };
}

/// Runs a scenario, and fails it when it hangs.
pub async fn run<R: Runtime, F: Future<Output = ()>>(scenario: impl FnOnce(R) -> F, runtime: R) {
    let scenario = scenario(runtime.clone());
    within(&runtime, PATIENCE, "the scenario", scenario).await;
}

/// Awaits `future` and fails if that takes too long.
async fn within<R: Runtime, T>(
    runtime: &R,
    time: Duration,
    what: &str,
    future: impl Future<Output = T>,
) -> T {
    let mut future = pin!(future);
    let deadline = runtime.now() + time;
    let mut alarm = Box::pin(runtime.sleep_until(deadline));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(value);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            assert!(runtime.now() < deadline, "{what} hangs");
            alarm.set(runtime.sleep_until(deadline));
        }
        Poll::Pending
    })
    .await
}

async fn rest<R: Runtime>(runtime: &R, time: Duration) {
    let deadline = runtime.now() + time;
    while runtime.now() < deadline {
        runtime.sleep_until(deadline).await;
    }
}

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A driver and one scripted machine on it.
struct Side<R: Runtime> {
    runtime: R,
    handle: Handle<Script, R>,
}

impl<R: Runtime> Side<R> {
    fn new(driver: &Driver<R>, habits: Habits) -> Self {
        Self {
            runtime: driver.runtime().clone(),
            handle: driver.drive(Script::new(habits)),
        }
    }

    fn client(runtime: &R) -> Self {
        Self::new(&Driver::new(runtime.clone()), Habits::Tell)
    }

    /// A server that answers by itself.
    async fn server(runtime: &R, tls: Option<Arc<ServerConfig>>) -> (Self, Server<R>) {
        Self::serving(runtime, tls, Habits::Serve).await
    }

    async fn serving(
        runtime: &R,
        tls: Option<Arc<ServerConfig>>,
        habits: Habits,
    ) -> (Self, Server<R>) {
        let side = Self::new(&Driver::new(runtime.clone()), habits);
        let server = Server::bind(&side.handle, LOOPBACK, tls).await;
        (side, server.expect("loopback has a free port"))
    }

    fn open(&self, request: Request) -> EffectId {
        self.handle.with(|m, _| m.open(request))
    }

    fn step(&self, id: EffectId, step: Out) {
        self.handle.with(|m, _| m.step(id, step));
    }

    /// The next step of any exchange.
    async fn next(&self) -> (EffectId, In) {
        within(
            &self.runtime,
            Duration::from_secs(20),
            "an event",
            self.handle.next(),
        )
        .await
        .expect("the machine is open")
    }

    /// The next step of this exchange but for reports of bytes sent; there must be no other.
    async fn of(&self, id: EffectId) -> In {
        loop {
            match self.next().await {
                (of, In::Sent(_)) if of == id => {}
                (of, step) => {
                    assert_eq!(of, id, "a step of another exchange: {step:?}");
                    return step;
                }
            }
        }
    }

    async fn reply(&self, id: EffectId) -> http::Response {
        match self.of(id).await {
            In::Reply(reply) => reply,
            step => panic!("not a reply: {step:?}"),
        }
    }

    /// The rest of the body, which ends well, and the trailers.
    async fn rest(&self, id: EffectId) -> (Vec<u8>, Headers) {
        let mut body = Vec::new();
        loop {
            match self.of(id).await {
                In::Data(data) => body.extend_from_slice(&data),
                In::End(trailers) => return (body, trailers),
                step => panic!("not part of a body: {step:?}"),
            }
        }
    }

    /// The whole answer to a request.
    async fn fetch(&self, request: Request) -> (u16, Vec<u8>) {
        let id = self.open(request);
        let reply = self.reply(id).await;
        (reply.status, self.rest(id).await.0)
    }

    /// How an exchange fails, whatever came before.
    async fn fault(&self, id: EffectId) -> Fault {
        loop {
            match self.of(id).await {
                In::Failed(fault) => return fault,
                In::End(_) => panic!("the exchange ended well"),
                _ => {}
            }
        }
    }

    /// The next exchange that a peer opens.
    async fn accept(&self) -> (EffectId, Request) {
        match self.next().await {
            (id, In::Request(request)) => (id, request),
            (_, step) => panic!("not a request: {step:?}"),
        }
    }
}

fn url<R: Runtime>(server: &Server<R>, secure: bool, path: &str) -> Url {
    let scheme = if secure { "https" } else { "http" };
    let text = format!("{scheme}://{}{path}", server.local_addr());
    Url::parse(&text).expect("the URL of a listening socket")
}

fn get(url: Url) -> Request {
    Request::new(Method::Get, url).trust(Trust::FirstUse)
}

fn post(url: Url, body: Body) -> Request {
    Request::new(Method::Post, url)
        .trust(Trust::FirstUse)
        .body(body)
}

fn identity<R: Runtime>(runtime: &R) -> Identity {
    Identity::self_signed("127.0.0.1", runtime.now()).expect("an address is ASCII")
}

fn tls(identity: &Identity) -> Option<Arc<ServerConfig>> {
    Some(crate::tls::server_config(identity).expect("the key is the certificate's"))
}

/// `len` bytes that tell where they belong.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// A socket in the hands of the scenario.
struct Raw<S>(S);

impl<S: Read + Write + Unpin> Raw<S> {
    async fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let n = std::future::poll_fn(|cx| Pin::new(&mut self.0).poll_write(cx, bytes)).await?;
            bytes = &bytes[n..];
        }
        std::future::poll_fn(|cx| Pin::new(&mut self.0).poll_flush(cx)).await
    }

    /// Some bytes; none at the end.
    async fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; 64 << 10];
        std::future::poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut bytes);
            std::task::ready!(Pin::new(&mut self.0).poll_read(cx, buf.unfilled()))?;
            Poll::Ready(Ok(buf.filled().to_vec()))
        })
        .await
    }

    /// Reads everything up to and with `end`.
    async fn read_to(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        loop {
            let more = self.read().await.expect("the peer has more to say");
            assert!(!more.is_empty(), "the peer stopped before {end:?}");
            all.extend_from_slice(&more);
            let text = String::from_utf8_lossy(&all);
            if text.contains(end) {
                return text.into_owned();
            }
        }
    }

    /// Reads everything up to the end of the stream, which may be a reset.
    async fn read_all(&mut self) -> String {
        let mut all = Vec::new();
        while let Ok(more) = self.read().await
            && !more.is_empty()
        {
            all.extend_from_slice(&more);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

async fn raw<R: Runtime>(runtime: &R, server: &Server<R>) -> Raw<R::Stream> {
    Raw(runtime
        .connect(server.local_addr())
        .await
        .expect("the server listens"))
}

/// A listening socket in the hands of the scenario, and its URL.
async fn listen<R: Runtime>(runtime: &R, scheme: &str) -> (R::Listener, Url) {
    let listener = runtime.bind(LOOPBACK).await.expect("a free port");
    let at = runtime.local_addr(&listener).expect("it has an address");
    let url = Url::parse(&format!("{scheme}://{at}/")).expect("the URL of a socket");
    (listener, url)
}

const HTTP1: Protocol = Protocol::Http1;
const HTTP2: Protocol = Protocol::Http2;
