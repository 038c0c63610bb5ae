//! The access logger's side of Envoy's interface: fills in what `log` writes.

use super::{
    configured, given_back, guarded, lent, log_error, EnvoyBuffer, EnvoyPointer, ModuleBuffer, ModulePointer,
    HEADERS_OF_REQUEST, MAIN_THREAD,
};
use crate::count::{Counts, Registry};
use crate::log::{Address, Config, Connection, Ended, Kind, Logger, Request};
use crate::sink::Sink;
use crate::stream::NAMESPACE;
use std::cell::OnceCell;
use std::sync::{Arc, Mutex};

/// A header that Envoy owns.
#[repr(C)]
#[derive(Clone, Copy)]
struct EnvoyHeader {
    name: EnvoyBuffer,
    value: EnvoyBuffer,
}

/// Nanoseconds, from the start but for the first; -1 where it has not happened.
#[repr(C)]
#[derive(Default)]
struct Times {
    start_since_1970: i64,
    request_complete: i64,
    first_upstream_sent: i64,
    last_upstream_sent: i64,
    first_upstream_received: i64,
    last_upstream_received: i64,
    first_downstream_sent: i64,
    last_downstream_sent: i64,
}

#[repr(C)]
#[derive(Default)]
struct Bytes {
    received: u64,
    sent: u64,
    wire_received: u64,
    wire_sent: u64,
}

extern "C" {
    fn envoy_dynamic_module_callback_access_logger_get_headers_size(entry: EnvoyPointer, kind: u32) -> usize;
    fn envoy_dynamic_module_callback_access_logger_get_headers(
        entry: EnvoyPointer,
        kind: u32,
        headers: *mut EnvoyHeader,
    ) -> bool;
    fn envoy_dynamic_module_callback_access_logger_get_timing_info(entry: EnvoyPointer, times: *mut Times);
    fn envoy_dynamic_module_callback_access_logger_get_bytes_info(entry: EnvoyPointer, bytes: *mut Bytes);
    fn envoy_dynamic_module_callback_access_logger_get_response_flags(entry: EnvoyPointer) -> u64;
    fn envoy_dynamic_module_callback_access_logger_get_response_code(entry: EnvoyPointer) -> u32;
    fn envoy_dynamic_module_callback_access_logger_get_attempt_count(entry: EnvoyPointer) -> u32;
    fn envoy_dynamic_module_callback_access_logger_get_response_code_details(
        entry: EnvoyPointer,
        text: *mut EnvoyBuffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_access_logger_get_route_name(entry: EnvoyPointer, text: *mut EnvoyBuffer) -> bool;
    fn envoy_dynamic_module_callback_access_logger_get_upstream_cluster(
        entry: EnvoyPointer,
        text: *mut EnvoyBuffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_access_logger_get_requested_server_name(
        entry: EnvoyPointer,
        text: *mut EnvoyBuffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_access_logger_get_upstream_transport_failure_reason(
        entry: EnvoyPointer,
        text: *mut EnvoyBuffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_access_logger_get_downstream_remote_address(
        entry: EnvoyPointer,
        ip: *mut EnvoyBuffer,
        port: *mut u32,
    ) -> bool;
    fn envoy_dynamic_module_callback_access_logger_get_upstream_remote_address(
        entry: EnvoyPointer,
        ip: *mut EnvoyBuffer,
        port: *mut u32,
    ) -> bool;
    fn envoy_dynamic_module_callback_access_logger_get_dynamic_metadata(
        entry: EnvoyPointer,
        namespace: ModuleBuffer<'_>,
        key: ModuleBuffer<'_>,
        text: *mut EnvoyBuffer,
    ) -> bool;
}

/// What has ended, for the time of one hook.
///
/// Its pointer is one that Envoy has given to the hook: what Envoy fills in from it stays until the hook returns, and Envoy
/// writes to a place before it returns true.
#[derive(Clone, Copy)]
struct Entry(EnvoyPointer);

type TextOf = unsafe extern "C" fn(EnvoyPointer, *mut EnvoyBuffer) -> bool;
type AddressOf = unsafe extern "C" fn(EnvoyPointer, *mut EnvoyBuffer, *mut u32) -> bool;

impl Entry {
    fn text<'a>(self, of: TextOf) -> Option<&'a [u8]> {
        let mut text = EnvoyBuffer::EMPTY;
        // SAFETY: see `Entry`.
        unsafe { of(self.0, &mut text).then(|| text.bytes()) }.filter(|text| !text.is_empty())
    }

    fn address<'a>(self, of: AddressOf) -> Option<Address<'a>> {
        let (mut ip, mut port) = (EnvoyBuffer::EMPTY, 0);
        // SAFETY: see `Entry`.
        unsafe { of(self.0, &mut ip, &mut port).then(|| (ip.bytes(), port)) }
    }

    fn times(self) -> Times {
        let mut times = Times::default();
        // SAFETY: see `Entry`.
        unsafe { envoy_dynamic_module_callback_access_logger_get_timing_info(self.0, &mut times) };
        times
    }

    fn ended<'a>(self, times: &Times) -> Ended<'a> {
        let mut bytes = Bytes::default();
        // SAFETY: see `Entry`.
        let flags = unsafe {
            envoy_dynamic_module_callback_access_logger_get_bytes_info(self.0, &mut bytes);
            envoy_dynamic_module_callback_access_logger_get_response_flags(self.0)
        };
        Ended {
            start: times.start_since_1970,
            duration: happened(times.request_complete),
            client: self.address(envoy_dynamic_module_callback_access_logger_get_downstream_remote_address),
            cluster: self.text(envoy_dynamic_module_callback_access_logger_get_upstream_cluster),
            upstream: self.address(envoy_dynamic_module_callback_access_logger_get_upstream_remote_address),
            flags,
            bytes_received: bytes.received,
            bytes_sent: bytes.sent,
        }
    }

    fn request<'a>(self, times: &Times, model_header: Option<&str>) -> Request<'a> {
        // SAFETY: see `Entry`.
        let (code, attempts) = unsafe {
            (
                envoy_dynamic_module_callback_access_logger_get_response_code(self.0),
                envoy_dynamic_module_callback_access_logger_get_attempt_count(self.0),
            )
        };
        let mut request = Request {
            route: self.text(envoy_dynamic_module_callback_access_logger_get_route_name),
            code,
            details: self.text(envoy_dynamic_module_callback_access_logger_get_response_code_details),
            attempts,
            sent: happened(times.first_upstream_sent),
            first_byte: happened(times.first_upstream_received),
            last_byte: happened(times.last_upstream_received),
            ..Request::default()
        };
        let mut original_path = None;
        self.for_each_header(|name, value| match name {
            b":method" => request.method = Some(value),
            b":authority" => request.authority = Some(value),
            b":path" => request.path = Some(value),
            b"x-envoy-original-path" => original_path = Some(value),
            b"x-request-id" => request.id = Some(value),
            name if model_header.is_some_and(|header| header.as_bytes() == name) => request.model = Some(value),
            _ => {}
        });
        request.path = original_path.or(request.path);
        if request.model.is_none() && model_header.is_some() {
            request.body_problem = self.metadata("body_problem");
        }
        request
    }

    fn connection<'a>(self) -> Connection<'a> {
        Connection {
            server_name: self.text(envoy_dynamic_module_callback_access_logger_get_requested_server_name),
            failure: self.text(envoy_dynamic_module_callback_access_logger_get_upstream_transport_failure_reason),
        }
    }

    fn for_each_header<'a>(self, mut read: impl FnMut(&'a [u8], &'a [u8])) {
        const USUAL: usize = 32;
        let none = EnvoyHeader { name: EnvoyBuffer::EMPTY, value: EnvoyBuffer::EMPTY };
        let mut usual = [none; USUAL];
        let mut unusual = Vec::new();
        // SAFETY: see `Entry`; Envoy fills in as many headers as it has said there are.
        unsafe {
            let count = envoy_dynamic_module_callback_access_logger_get_headers_size(self.0, HEADERS_OF_REQUEST);
            let headers = if count <= USUAL {
                &mut usual[..count]
            } else {
                unusual.resize(count, none);
                &mut unusual[..]
            };
            let place = headers.as_mut_ptr();
            if count > 0 && envoy_dynamic_module_callback_access_logger_get_headers(self.0, HEADERS_OF_REQUEST, place) {
                headers.iter().for_each(|header| read(header.name.bytes(), header.value.bytes()));
            }
        }
    }

    fn metadata<'a>(self, key: &str) -> Option<&'a [u8]> {
        let mut text = EnvoyBuffer::EMPTY;
        // SAFETY: see `Entry`.
        unsafe {
            envoy_dynamic_module_callback_access_logger_get_dynamic_metadata(
                self.0,
                NAMESPACE.into(),
                key.into(),
                &mut text,
            )
            .then(|| text.bytes())
        }
    }
}

fn happened(nanoseconds: i64) -> Option<i64> {
    (nanoseconds >= 0).then_some(nanoseconds)
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_access_logger_config_new(
    _config: EnvoyPointer,
    name: EnvoyBuffer,
    json: EnvoyBuffer,
) -> ModulePointer {
    // SAFETY: both texts are of this call.
    unsafe { configured("access log", name, json, |name, json| Config::parse(name, json).map(Arc::new)) }
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_access_logger_config_destroy(config: ModulePointer) {
    // SAFETY: `config` is what `config_new` lent; Envoy gives it back once.
    unsafe { given_back::<Arc<Config>>(config) }
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_access_logger_new(
    config: ModulePointer,
    _logger: EnvoyPointer,
) -> ModulePointer {
    // SAFETY: `config` is what `config_new` lent, and Envoy has not given it back yet.
    guarded(std::ptr::null(), || lent(logger(unsafe { &*config.cast::<Arc<Config>>() })))
}

fn logger(config: &Arc<Config>) -> Logger {
    thread_local! {
        static COUNTS: OnceCell<Arc<Mutex<Counts>>> = const { OnceCell::new() };
    }
    let counts = COUNTS.with(|counts| Arc::clone(counts.get_or_init(|| Registry::global().thread())));
    Logger::new(Arc::clone(config), Sink::shared(&config.path, log_problem), counts)
}

fn log_problem(problem: &str) {
    log_error(&format!("gwanmun: access log: {problem}"));
}

/// The log of a hook.
///
/// # Safety
/// `module` is what `logger_new` lent, and it was not given back. Envoy calls the hooks of one log one after the other, on the
/// thread that it was made on.
unsafe fn log_of<'a>(module: ModulePointer) -> &'a mut Logger {
    // SAFETY: by the caller's promise.
    unsafe { &mut *module.cast::<Logger>().cast_mut() }
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_access_logger_log(entry: EnvoyPointer, module: ModulePointer, _kind: u32) {
    guarded((), || {
        // SAFETY: Envoy calls one hook of a log at a time.
        let logger = unsafe { log_of(module) };
        let entry = Entry(entry);
        let times = entry.times();
        let ended = entry.ended(&times);
        match logger.kind() {
            Kind::Requests { model_header } => {
                let request = entry.request(&times, model_header.as_deref());
                logger.request(&ended, &request);
            }
            Kind::Connections { .. } => logger.connection(&ended, &entry.connection()),
        }
    });
}

/// A log is about to go. With the main thread's Envoy ends, and the thread that writes with it: after those of the workers,
/// which wait for no disk, as they serve on when just a listener goes.
#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_access_logger_flush(module: ModulePointer) {
    guarded((), || {
        if MAIN_THREAD.get() == Some(&std::thread::current().id()) {
            // SAFETY: Envoy calls one hook of a log at a time.
            unsafe { log_of(module) }.flush();
        }
    });
}

#[no_mangle]
unsafe extern "C" fn envoy_dynamic_module_on_access_logger_destroy(module: ModulePointer) {
    // SAFETY: `module` is what `logger_new` lent; Envoy gives it back once.
    unsafe { given_back::<Logger>(module) }
}
