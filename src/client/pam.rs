//! Whether the system knows a user by a password: Linux-PAM.
//!
//! libpam is looked for when the first user is to be asked about (`libpam.so.0`), so that pooler builds and runs where there is none.
//! Modules may take their time: they run on threads of their own, a few at a time. Source: pam_start(3), pam_conv(3).

#![expect(unsafe_code, reason = "libpam is a C library; each call says why it is sound")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr,
    sync::OnceLock,
};

use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// So many users are asked about at a time; the others wait.
const AT_A_TIME: usize = 16;
/// Most messages of a module at once (PAM_MAX_NUM_MSG).
const MOST_MESSAGES: c_int = 32;
/// Longest answer of a module's user (PAM_MAX_RESP_SIZE).
const LONGEST: usize = 511;

const SUCCESS: c_int = 0;
const CONVERSATION_FAILED: c_int = 19;
/// PAM_SILENT and PAM_DISALLOW_NULL_AUTHTOK: modules write nothing, and an empty password proves nothing.
const FLAGS: c_int = 0x8000 | 0x0001;
/// PAM_RHOST.
const REMOTE_HOST: c_int = 4;
/// Kinds of messages.
const PROMPT_ECHO_OFF: c_int = 1;
const ERROR_MESSAGE: c_int = 3;
const TEXT_INFO: c_int = 4;

/// Why nobody was let in. For the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PamError {
    #[error("libpam cannot be used: {0}")]
    Library(String),
    #[error("{0}")]
    Refused(String),
    #[error("the name or the password cannot be given to PAM")]
    Text,
    #[error("the thread ended")]
    Thread,
}

/// Lets whoever the system knows in, by the rules of that service (a file in `/etc/pam.d`).
pub(crate) async fn authenticate(
    service: &str,
    user: &str,
    password: Zeroizing<String>,
    host: Option<String>,
) -> Result<(), PamError> {
    static ASKING: Semaphore = Semaphore::const_new(AT_A_TIME);
    if password.is_empty() || password.len() > LONGEST {
        return Err(PamError::Text);
    }
    let text = |text: &str| CString::new(text).map_err(|_| PamError::Text);
    let (service, user, host) = (text(service)?, text(user)?, text(host.as_deref().unwrap_or("[local]"))?);
    let permit = ASKING.acquire().await.map_err(|_| PamError::Thread)?;
    let asked = tokio::task::spawn_blocking(move || {
        // A client that has left does not end the module: its place is free when that has ended.
        let _permit = permit;
        ask(&service, &user, &password, &host)
    });
    asked.await.map_err(|_| PamError::Thread)?
}

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Converse = unsafe extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

/// pam_handle_t.
type Handle = *mut c_void;

/// What libpam offers.
struct Library {
    start: unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut Handle) -> c_int,
    authenticate: unsafe extern "C" fn(Handle, c_int) -> c_int,
    account: unsafe extern "C" fn(Handle, c_int) -> c_int,
    set_item: unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int,
    end: unsafe extern "C" fn(Handle, c_int) -> c_int,
    error: unsafe extern "C" fn(Handle, c_int) -> *const c_char,
}

fn library() -> Result<&'static Library, PamError> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref().map_err(|error| PamError::Library(error.clone()))
}

fn load() -> Result<Library, String> {
    let last_error = || {
        // SAFETY: dlerror gives NULL or a text that stays until this thread's next call.
        unsafe {
            let text = libc::dlerror();
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    };
    // SAFETY: the name ends with NUL; what libpam does when it is loaded is harmless. It is never unloaded.
    let handle = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        return Err(last_error());
    }
    let symbol = |name: &CStr| {
        // SAFETY: the handle is open, and the name ends with NUL.
        let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
        if found.is_null() { Err(last_error()) } else { Ok(found) }
    };
    // SAFETY: the symbols are functions of these types: pam_start(3), pam_authenticate(3), pam_acct_mgmt(3), pam_set_item(3),
    // pam_end(3), pam_strerror(3).
    unsafe {
        use std::mem::transmute;
        Ok(Library {
            start: transmute::<
                *mut c_void,
                unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut Handle) -> c_int,
            >(symbol(c"pam_start")?),
            authenticate: transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int) -> c_int>(symbol(
                c"pam_authenticate",
            )?),
            account: transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int) -> c_int>(symbol(
                c"pam_acct_mgmt",
            )?),
            set_item: transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int>(
                symbol(c"pam_set_item")?,
            ),
            end: transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int) -> c_int>(symbol(c"pam_end")?),
            error: transmute::<*mut c_void, unsafe extern "C" fn(Handle, c_int) -> *const c_char>(symbol(
                c"pam_strerror",
            )?),
        })
    }
}

/// Asks; blocks for as long as the modules take.
fn ask(service: &CStr, user: &CStr, password: &Zeroizing<String>, host: &CStr) -> Result<(), PamError> {
    let pam = library()?;
    let conversation =
        Conversation { converse, data: ptr::from_ref::<Zeroizing<String>>(password).cast_mut().cast() };
    let mut handle: Handle = ptr::null_mut();
    // SAFETY: the texts end with NUL, and the conversation and the password live until pam_end.
    let mut code =
        unsafe { (pam.start)(service.as_ptr(), user.as_ptr(), &raw const conversation, &raw mut handle) };
    if code == SUCCESS {
        // SAFETY: the handle is open; items are copied.
        unsafe {
            code = (pam.set_item)(handle, REMOTE_HOST, host.as_ptr().cast());
            if code == SUCCESS {
                code = (pam.authenticate)(handle, FLAGS);
            }
            // It may be expired, or closed at this time.
            if code == SUCCESS {
                code = (pam.account)(handle, FLAGS);
            }
        }
    }
    // SAFETY: pam_strerror takes any handle, and gives a text that stays; pam_end takes what pam_start has made.
    unsafe {
        let text = (pam.error)(handle, code);
        let said =
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() };
        if !handle.is_null() {
            (pam.end)(handle, code);
        }
        if code == SUCCESS { Ok(()) } else { Err(PamError::Refused(said)) }
    }
}

/// Answers what modules ask: the password, wherever they want to read something unseen. To anything else there is no answer.
///
/// # Safety
///
/// libpam calls it as pam_conv(3) says, with the data of the conversation: the password.
unsafe extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    if !(1..=MOST_MESSAGES).contains(&count) || messages.is_null() || responses.is_null() || data.is_null() {
        return CONVERSATION_FAILED;
    }
    let Ok(count) = usize::try_from(count) else { return CONVERSATION_FAILED };
    // SAFETY: data is the password of `ask`, which waits for this call; libpam hands `count` messages over. It frees what it is given
    // with free(3), so that comes from calloc(3) and strndup(3); what has been made is freed here when the answer fails.
    unsafe {
        let password = &*data.cast::<Zeroizing<String>>();
        let answers: *mut Response = libc::calloc(count, size_of::<Response>()).cast();
        if answers.is_null() {
            return CONVERSATION_FAILED;
        }
        for index in 0..count {
            let message = *messages.add(index);
            let answer = match message.as_ref().map(|message| message.style) {
                Some(PROMPT_ECHO_OFF) => libc::strndup(password.as_ptr().cast(), password.len()),
                Some(ERROR_MESSAGE | TEXT_INFO) => continue,
                _ => ptr::null_mut(),
            };
            if answer.is_null() {
                for made in 0..index {
                    libc::free((*answers.add(made)).text.cast());
                }
                libc::free(answers.cast());
                return CONVERSATION_FAILED;
            }
            (*answers.add(index)).text = answer;
        }
        *responses = answers;
    }
    SUCCESS
}
