//! Tickets: hashing, signing, verifying, and whole payments on both sides.
//!
//! Goals: a signature costs at most 1.15 times what the bare curve library takes, and a sum of amounts at most a tenth of
//! what one in lowest terms does.

#![allow(missing_docs, reason = "criterion makes functions without any")]

use std::cell::RefCell;
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use k256::ecdsa::{RecoveryId, Signature as Bare, SigningKey, VerifyingKey};
use livepeer_benches::payment::{NOW, Scene, key};
use livepeer_core::money::Amount;
use livepeer_core::payment::ticket::{Ticket, expected_value};
use livepeer_core::{Digest, Effect, Input, Machine, Output, Signature};
use livepeer_runtime::{KeyHolder as _, LocalKey};
use num_rational::BigRational;
use num_traits::Zero as _;

fn sign(key: &LocalKey, digest: Digest) -> Signature {
    let mut cx = Context::from_waker(Waker::noop());
    match key.sign(digest).as_mut().poll(&mut cx) {
        Poll::Ready(Ok(signature)) => signature,
        _ => panic!("a local key signs at once"),
    }
}

fn tickets(c: &mut Criterion) {
    let scene = Scene::new();
    let ticket = Ticket::new(&scene.params, key().address(), 1);
    let mut group = c.benchmark_group("ticket");
    group.bench_function("hash", |b| b.iter(|| black_box(&ticket).hash()));

    let bare = SigningKey::from_slice(&[7; 32]).expect("a key");
    let digest = ticket.digest();
    group.bench_function("sign: bare curve", |b| {
        b.iter(|| {
            bare.sign_prehash_recoverable(&black_box(digest).0)
                .expect("it signs")
        });
    });
    let ours = key();
    group.bench_function("sign", |b| b.iter(|| sign(&ours, black_box(digest))));

    let signature = sign(&ours, digest);
    let parsed = Bare::from_slice(&signature.0[..64]).expect("a signature");
    let recovery = RecoveryId::from_byte(signature.0[64] - 27).expect("0 or 1");
    group.bench_function("verify: bare curve", |b| {
        b.iter(|| VerifyingKey::recover_from_prehash(&digest.0, black_box(&parsed), recovery));
    });
    group.bench_function("verify", |b| {
        b.iter(|| black_box(&ticket).verify(&signature.0).expect("it is ours"));
    });
    group.finish();
}

fn generate(c: &mut Criterion) {
    let mut group = c.benchmark_group("generate-payment");
    group.throughput(Throughput::Elements(1));
    for (name, continued) in [("first, 1 ticket", false), ("continued, 1 ticket", true)] {
        let mut scene = Scene::new();
        let signer = RefCell::new(scene.signer());
        let mut quotes = 0;
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    quotes += 1;
                    scene.requote(quotes);
                    match continued {
                        true => scene.continued_body(&mut signer.borrow_mut()),
                        false => scene.first_body(),
                    }
                },
                |body| signer.borrow_mut().call(black_box(&body)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn receive(c: &mut Criterion) {
    let mut group = c.benchmark_group("receive-batch");
    group.sample_size(20);
    for count in [1_u32, 100] {
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(format!("{count} tickets"), |b| {
            b.iter_batched(
                || Scene::new().receipt(count),
                |(mut receiver, payment)| {
                    receiver.receive(NOW, "job", payment);
                    loop {
                        match receiver.poll_output() {
                            Output::Effect(id, Effect::Store(_)) => {
                                receiver.handle_input(NOW, Input::Stored(id, Ok(())));
                            }
                            Output::Idle(_) => return receiver,
                            _ => {}
                        }
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Sums of the values of tickets, and beside them the same by the library, which brings each to lowest terms.
fn amounts(c: &mut Criterion) {
    let params = Scene::new().params;
    let value = expected_value(&params.face_value, &params.win_prob);
    let number = value.as_ratio().reduced();
    let mut group = c.benchmark_group("amount");
    group.throughput(Throughput::Elements(100));
    group.bench_function("100 values, lowest terms", |b| {
        b.iter(|| (0..100).fold(BigRational::zero(), |sum, _| sum + black_box(&number)));
    });
    group.bench_function("100 values", |b| {
        b.iter(|| {
            let mut sum = Amount::zero();
            for _ in 0..100 {
                sum += black_box(&value);
            }
            sum
        });
    });
    group.finish();
}

criterion_group!(payments, amounts, tickets, generate, receive);
criterion_main!(payments);
