//! A lock nobody else wants, taken and given back: alone, in a set, and beside many others that are held.

use std::sync::Arc;

use divan::{Bencher, main};
use scoria_coordination::providers::{FileProvider, MemoryProvider};
use scoria_coordination::{Coordinator, LockRequest, Options, Owner};
use tokio::runtime::Runtime;

struct Service {
    runtime: Runtime,
    coordinator: Coordinator,
    _directory: tempfile::TempDir,
}

fn service(kind: &str) -> Service {
    let runtime = Runtime::new().expect("runtime");
    let directory = tempfile::tempdir().expect("temporary directory");
    let coordinator = match kind {
        "memory" => Coordinator::new(Arc::new(MemoryProvider::new())),
        _ => {
            let options = Options { exclusive_directory: kind == "file-removed", ..Options::default() };
            let provider = runtime.block_on(FileProvider::in_directory(directory.path(), &options)).expect("provider");
            Coordinator::new(Arc::new(provider))
        }
    };
    Service { runtime, coordinator, _directory: directory }
}

fn request() -> LockRequest {
    LockRequest::new(Owner { operation: "delete_volume".to_owned(), ..Owner::default() })
}

const KINDS: [&str; 3] = ["memory", "file", "file-removed"];

#[divan::bench(args = KINDS)]
fn one(bencher: Bencher<'_, '_>, kind: &str) {
    let service = service(kind);
    bencher.bench_local(|| {
        service.runtime.block_on(async {
            let held = service.coordinator.acquire(request().exclusive("a-delete_volume")).await.expect("free");
            held.release().await.expect("release");
        });
    });
}

#[divan::bench(args = KINDS)]
fn set_of_three(bencher: Bencher<'_, '_>, kind: &str) {
    let service = service(kind);
    bencher.bench_local(|| {
        service.runtime.block_on(async {
            let set = request().exclusive("a-delete_volume").exclusive("nfs-a").shared("nfs-b");
            service.coordinator.acquire(set).await.expect("free").release().await.expect("release");
        });
    });
}

#[divan::bench(args = KINDS)]
fn one_beside_a_hundred(bencher: Bencher<'_, '_>, kind: &str) {
    let service = service(kind);
    let others = (0..100).fold(request(), |request, n| request.exclusive(format!("other-{n}")));
    let _held = service.runtime.block_on(service.coordinator.acquire(others)).expect("free");
    bencher.bench_local(|| {
        service.runtime.block_on(async {
            let held = service.coordinator.acquire(request().exclusive("a-delete_volume")).await.expect("free");
            held.release().await.expect("release");
        });
    });
}
