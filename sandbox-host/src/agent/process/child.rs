//! The child between `clone3` and `execve`.
//!
//! It runs in the agent's memory while the agent stands still (`CLONE_VM | CLONE_VFORK`), so it
//! calls the kernel and nothing else: no allocation, no lock, no libc function that keeps state.
//! All strings and lists are made before.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_void},
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    ptr,
};

use super::user::User;

/// Where starting a process failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Clone,
    Session,
    User,
    Directory,
    Execute,
}

/// Everything that the child needs, by pointers into strings that outlive it.
pub(crate) struct ChildPlan<'a> {
    programs: &'a [CString],
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    directories: &'a [CString],
    descriptors: [RawFd; 3],
    terminal: bool,
    user: Option<&'a User>,
    /// The agent is protected from the kernel's out-of-memory killer; its children are not.
    reset_oom_score: bool,
    failure: Option<(Step, c_int)>,
}

impl<'a> ChildPlan<'a> {
    #[expect(
        clippy::too_many_arguments,
        reason = "one caller, and each is a part of the plan"
    )]
    pub(crate) fn new(
        programs: &'a [CString],
        args: &'a [CString],
        env: &'a [CString],
        directories: &'a [CString],
        descriptors: [RawFd; 3],
        terminal: bool,
        user: Option<&'a User>,
        reset_oom_score: bool,
    ) -> Self {
        let pointers = |strings: &'a [CString]| {
            strings
                .iter()
                .map(|string| string.as_ptr())
                .chain([ptr::null()])
                .collect()
        };
        Self {
            programs,
            argv: pointers(args),
            envp: pointers(env),
            directories,
            descriptors,
            terminal,
            user,
            reset_oom_score,
            failure: None,
        }
    }
}

/// Bytes of stack that the child has for itself. It calls the kernel and little else.
const STACK_BYTES: usize = 64 * 1024;

/// Makes the child and returns its process ID once it runs its program.
pub(crate) fn run(
    mut plan: ChildPlan<'_>,
    cgroup: Option<&OwnedFd>,
) -> Result<u32, (Step, io::Error)> {
    // No handler may run in the child while it shares our memory: it unblocks signals itself, when
    // none is caught any more.
    let all = nix::sys::signal::SigSet::all();
    let mut before = nix::sys::signal::SigSet::empty();
    nix::sys::signal::pthread_sigmask(
        nix::sys::signal::SigmaskHow::SIG_SETMASK,
        Some(&all),
        Some(&mut before),
    )
    .map_err(|error| (Step::Clone, error.into()))?;
    let pid = clone_child(&mut plan, cgroup);
    // Restoring the mask that was in force can't fail.
    let _ = before.thread_set_mask();
    let pid = pid.map_err(|error| (Step::Clone, error))?;
    match plan.failure {
        None => Ok(pid),
        Some((step, errno)) => {
            // The child has left its error and exited; the reaper does not know it.
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid.cast_signed()), None);
            Err((step, io::Error::from_raw_os_error(errno)))
        }
    }
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

fn clone_child(plan: &mut ChildPlan<'_>, cgroup: Option<&OwnedFd>) -> io::Result<u32> {
    let mut stack = vec![0u64; STACK_BYTES / size_of::<u64>()];
    let mut args = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        // Rounded down so that the top is aligned to 16 bytes wherever the vector starts.
        stack_size: (STACK_BYTES - (stack.as_ptr() as usize + STACK_BYTES) % 16) as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    }
    // SAFETY: the child runs `child_main` on a stack of its own in our memory, which stays as it
    // is until the child has executed or exited, since CLONE_VFORK suspends us; `plan` and all that
    // it points to live as long.
    let pid = unsafe { clone3(&args, child_main, ptr::from_mut(plan).cast()) };
    if pid < 0 {
        return Err(io::Error::from_raw_os_error(-pid as i32));
    }
    Ok(pid as u32)
}

/// The raw call. In the child, `entry(argument)` runs on the new stack.
///
/// # Safety
/// `args` must describe a valid stack aligned to 16 bytes; `entry` must not return and must keep to
/// what a child that shares memory may do.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    args: &CloneArgs,
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> c_long {
    let result: c_long;
    // SAFETY: per the caller. The kernel keeps all registers but rax, rcx and r11, in the child too,
    // so the child finds entry and argument where we put them.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") argument,
            in("r13") entry,
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    args: &CloneArgs,
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> c_long {
    let result: c_long;
    // SAFETY: per the caller. The kernel keeps all registers but x0, in the child too.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            inlateout("x0") args => result,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            in("x20") argument,
            in("x21") entry,
            out("x30") _,
        );
    }
    result
}

/// # Safety
/// Called by [`clone_child`] alone, with a [`ChildPlan`] whose pointers are valid.
unsafe extern "C" fn child_main(argument: *mut c_void) -> ! {
    // SAFETY: `clone_child` passes a plan, and the agent does not touch it while we run.
    let plan = unsafe { &mut *argument.cast::<ChildPlan<'_>>() };
    // SAFETY: as above.
    let (step, errno) = match unsafe { become_program(plan) } {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    plan.failure = Some((step, errno));
    // SAFETY: ends this process without running anything of the agent's.
    unsafe {
        libc::syscall(libc::SYS_exit_group, 127);
    }
    loop {
        std::hint::spin_loop();
    }
}

/// # Safety
/// As for [`child_main`].
unsafe fn become_program(plan: &ChildPlan<'_>) -> Result<std::convert::Infallible, (Step, c_int)> {
    let session = |result| check(Step::Session, result);
    // SAFETY: here and below, plain system calls on valid descriptors, terminated strings and
    // terminated lists. User and group calls are made directly, since libc's would also change the
    // agent, whose memory this is.
    unsafe {
        session(libc::syscall(libc::SYS_setsid))?;
        // Descriptors 0 to 2 are targets; whatever stands there has been moved up by the caller.
        for (target, source) in plan.descriptors.iter().enumerate() {
            session(libc::syscall(libc::SYS_dup3, *source, target, 0))?;
        }
        if plan.terminal {
            session(libc::syscall(libc::SYS_ioctl, 0, libc::TIOCSCTTY, 0))?;
        }
        if plan.reset_oom_score {
            reset_oom_score();
        }
    }
    if let Some(user) = plan.user {
        let user_step = |result| check(Step::User, result);
        // SAFETY: see above.
        unsafe {
            user_step(libc::syscall(
                libc::SYS_setgroups,
                user.groups.len(),
                user.groups.as_ptr(),
            ))?;
            user_step(libc::syscall(
                libc::SYS_setresgid,
                user.gid,
                user.gid,
                user.gid,
            ))?;
            user_step(libc::syscall(
                libc::SYS_setresuid,
                user.uid,
                user.uid,
                user.uid,
            ))?;
        }
    }
    let mut entered = Err((Step::Directory, libc::ENOENT));
    for directory in plan.directories {
        // SAFETY: see above.
        entered = check(Step::Directory, unsafe {
            libc::syscall(libc::SYS_chdir, directory.as_ptr())
        });
        if entered.is_ok() {
            break;
        }
    }
    entered?;
    // SAFETY: see above. The handler table is a copy of the agent's and ours alone (no
    // CLONE_SIGHAND).
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let none: u64 = 0;
        session(libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut::<c_void>(),
            size_of::<u64>(),
        ))?;
    }
    let mut failure = libc::ENOENT;
    for program in plan.programs {
        match execute(plan, program) {
            // What `execvp` does: the next folder, but a refusal on the way is remembered.
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => failure = libc::EACCES,
            other => return Err((Step::Execute, other)),
        }
    }
    Err((Step::Execute, failure))
}

/// Returns the error; does not return when the program runs.
fn execute(plan: &ChildPlan<'_>, program: &CStr) -> c_int {
    // SAFETY: terminated string, terminated lists.
    unsafe {
        libc::syscall(
            libc::SYS_execve,
            program.as_ptr(),
            plan.argv.as_ptr(),
            plan.envp.as_ptr(),
        );
        *libc::__errno_location()
    }
}

fn check(step: Step, result: c_long) -> Result<(), (Step, c_int)> {
    if result >= 0 {
        return Ok(());
    }
    // SAFETY: reads this thread's errno. The child shares it with the agent's thread, which stands
    // still.
    Err((step, unsafe { *libc::__errno_location() }))
}

/// # Safety
/// As for [`become_program`].
unsafe fn reset_oom_score() {
    // SAFETY: plain system calls; a failure is harmless.
    unsafe {
        let file = libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
            0,
        );
        if file >= 0 {
            libc::syscall(libc::SYS_write, file, c"0".as_ptr(), 1);
            libc::syscall(libc::SYS_close, file);
        }
    }
}
