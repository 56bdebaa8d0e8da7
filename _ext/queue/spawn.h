/* Starting a process that is an orphan, asking whether a folder's lock is held, and ringing a folder's bell.
 *
 * Each is one C call under the GIL: no other Python thread can fork while a descriptor is open, so no child of the
 * application can inherit the lock and hold it for its life. And the caller need not wait for the GIL afterwards.
 */
#ifndef EPSAGON_SPAWN_H
#define EPSAGON_SPAWN_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

/* Names with a 32 are those of kernels that once had ids of 16 bits. */
#ifdef SYS_setresuid32
#define EPS_SETRESUID SYS_setresuid32
#define EPS_SETRESGID SYS_setresgid32
#define EPS_SETGROUPS SYS_setgroups32
#elif defined(__linux__)
#define EPS_SETRESUID SYS_setresuid
#define EPS_SETRESGID SYS_setresgid
#define EPS_SETGROUPS SYS_setgroups
#endif

/* The start lock's file, the descriptor on which the new process finds it, and the file that takes what it says.
 * names.py has them too; _spawn.pyx compares. */
#define START_NAME "start"
#define START_LOCK_FD 3
#define LOG_NAME "log"
/* Opens without following a link and without waiting for a FIFO. */
#define EPS_SAFELY (O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)

enum { EPS_STARTED = 0, EPS_NOT_NEEDED = 1 };

typedef struct {
    char *const *argv;
    char *const *envp;
    int null_fd, log_fd, lock_fd;
    volatile int error; /* memory is shared until exec, so the caller sees what went wrong */
} eps_program;

/* 1: a process holds it, 0: none does, negative: -errno. `dir_fd`: the directory from which a relative path starts. */
static int eps_folder_is_held(int dir_fd, const char *folder)
{
    int fd = openat(dir_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int held = 0;
    if (flock(fd, LOCK_SH | LOCK_NB) != 0)
        held = errno == EWOULDBLOCK ? 1 : -errno;
    close(fd);
    return held;
}

/* Sets the inode number of what a path leads to, of a link itself; returns 0, or -errno.
 * The interpreter's os.stat gives up its lock. Beside threads that compute, getting that back takes milliseconds. */
static int eps_inode(const char *path, unsigned long long *inode)
{
    struct stat found;
#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
    /* lstat itself, built against a new glibc, is of version 2.33. Here the kernel's structure is the C library's. */
    if (syscall(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) != 0)
        return -errno;
#else
    if (lstat(path, &found) != 0)
        return -errno;
#endif
    *inode = found.st_ino;
    return 0;
}

static int eps_fstat(int fd, struct stat *found)
{
#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
    return (int)syscall(SYS_fstat, fd, found); /* for the same reason */
#else
    return fstat(fd, found);
#endif
}

/* Write a byte into the FIFO `path` if it is one of ours alone. 1: written. 0: there is no such FIFO, or it is full.
 *
 * Open for reading too: a writer alone would be killed by SIGPIPE if the last reader ended meanwhile. What no other
 * process reads is gone when it is closed. */
static int eps_ring(const char *path, char word)
{
    struct stat found;
    int fd = open(path, O_RDWR | EPS_SAFELY);
    if (fd < 0)
        return 0;
    int is_ours = eps_fstat(fd, &found) == 0 && S_ISFIFO(found.st_mode) && found.st_uid == geteuid() &&
                  !(found.st_mode & (S_IRWXG | S_IRWXO));
    int is_written = is_ours && write(fd, &word, 1) == 1;
    close(fd);
    return is_written;
}

static void eps_close_from(int first)
{
#if defined(__linux__) && defined(SYS_close_range)
    if (syscall(SYS_close_range, (unsigned)first, ~0U, 0U) == 0)
        return;
#endif
    long most = sysconf(_SC_OPEN_MAX);
    if (most < 0 || most > 65536)
        most = 65536;
    for (int fd = first; fd < most; fd++)
        close(fd);
}

/* On Linux fcntl(F_DUPFD) and pthread_sigmask are called by their older names. The usual names, built against a new
 * glibc, are versions of 2.28 and 2.32, and the module would not load on an older glibc. */
static int eps_out_of_the_way(int fd)
{
#ifdef __linux__
    return (int)syscall(SYS_fcntl, fd, F_DUPFD, START_LOCK_FD + 1);
#else
    return fcntl(fd, F_DUPFD, START_LOCK_FD + 1);
#endif
}

static void eps_set_mask(const sigset_t *mask, sigset_t *before)
{
#ifdef __linux__
    sigprocmask(SIG_SETMASK, mask, before); /* of this thread alone, as it is on Linux */
#else
    pthread_sigmask(SIG_SETMASK, mask, before);
#endif
}

/* Undoes what the new program cannot undo itself, or needs before it can: with few open files it could not begin. */
static void eps_shed(void)
{
    struct rlimit limit = {64, 64}; /* only a privileged process gets more than it had */
    struct rlimit had;
    if (getrlimit(RLIMIT_NOFILE, &had) == 0 && (had.rlim_max >= 64 || setrlimit(RLIMIT_NOFILE, &limit) != 0)) {
        had.rlim_cur = had.rlim_max;
        setrlimit(RLIMIT_NOFILE, &had);
    }
#ifdef __linux__
    prctl(PR_SET_TIMERSLACK, 50000UL, 0UL, 0UL, 0UL); /* the kernel's default, ns */
    personality(PER_LINUX);                           /* undoes fixed addresses and the like */
    syscall(SYS_ioprio_set, 1 /* a process */, 0 /* this one */, 0 /* as its nice value says */);
    syscall(SYS_set_mempolicy, 0 /* the default */, NULL, 0UL);
#endif
}

/* Whether this program was started as another user or group than its caller (setuid, setgid), whatever ids it has taken
 * since. With file capabilities alone the user is the same, so the answer is no. */
static int eps_is_elevated(void)
{
#ifdef __linux__
    unsigned long user = getauxval(AT_UID);
    return user != 0 && (user != getauxval(AT_EUID) || getauxval(AT_GID) != getauxval(AT_EGID));
#else
    return issetugid();
#endif
}

/* Leave no core file, and let no process of the same user look into this one: bodies and tokens are in its memory. */
static int eps_close_memory(void)
{
#ifdef __linux__
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : -errno;
#else
    return 0;
#endif
}

/* Make real, effective and saved ids the same, or return EPERM: the reader of a user's files must have no other user's
 * rights, now or later. Only a process that may become root again can drop its groups. Raw system calls, because those of
 * the C library would also change the threads whose memory we share. */
static int eps_settle_ids(void)
{
#ifdef __linux__
    uid_t real, user, saved;
    gid_t real_group, group, saved_group;
    if (getresuid(&real, &user, &saved) != 0 || getresgid(&real_group, &group, &saved_group) != 0)
        return errno;
#ifdef PR_CAP_AMBIENT
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* EINVAL: before Linux 4.3 there are none */
#endif
    if (real == user && saved == user && real_group == group && saved_group == group)
        return 0;
    if (user == 0 || group == 0 || (real != 0 && saved != 0))
        return EPERM;
    if (syscall(EPS_SETRESUID, -1, 0, -1) != 0 || syscall(EPS_SETGROUPS, 1, &group) != 0 ||
        syscall(EPS_SETRESGID, group, group, group) != 0 || syscall(EPS_SETRESUID, user, user, user) != 0)
        return errno;
    return 0;
#else
    return getuid() == geteuid() && getgid() == getegid() ? 0 : EPERM;
#endif
}

/* Runs in the new process. Only async-signal-safe calls: other threads' locks may be held in the memory we share. */
static void eps_become(eps_program *program)
{
    eps_shed();
    /* First moved to higher numbers, because each of the three may be one of the numbers 0 to 3. */
    int null_fd = eps_out_of_the_way(program->null_fd);
    int log_fd = eps_out_of_the_way(program->log_fd);
    int lock_fd = eps_out_of_the_way(program->lock_fd);
    if (null_fd < 0 || log_fd < 0 || lock_fd < 0 || dup2(null_fd, 0) < 0 || dup2(log_fd, 1) < 0 ||
        dup2(log_fd, 2) < 0 || dup2(lock_fd, START_LOCK_FD) < 0) {
        program->error = errno;
        return;
    }
    eps_close_from(START_LOCK_FD + 1);
    for (int number = 1; number < 65; number++) /* ignored signals would stay ignored across exec */
        signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    eps_set_mask(&none, NULL);
    umask(077);
    program->error = eps_settle_ids();
    if (program->error)
        return;
    if (chdir("/") == 0)
        execve(program->argv[0], program->argv, program->envp);
    program->error = errno;
}

static int eps_intermediate(void *argument)
{
    eps_program *program = argument;
    setsid();
    pid_t child = vfork();
    if (child == 0) {
        eps_become(program);
        _exit(127);
    }
    if (child < 0)
        program->error = errno;
    _exit(0);
    return 0;
}

/* Two processes deep: the outer one ends at once and is reaped here, so init adopts the inner one. */
static int eps_spawn_twice(eps_program *program)
{
    sigset_t all, before;
    sigfillset(&all);
    eps_set_mask(&all, &before); /* no handler of the application runs in the borrowed memory */
    int status, result = 0;
#ifdef __linux__
    /* Exit signal 0: no SIGCHLD for the application, and its own wait() cannot take this child from us. */
    static char stack[64 * 1024] __attribute__((aligned(16)));
    pid_t child = clone(eps_intermediate, stack + sizeof stack, CLONE_VM | CLONE_VFORK, program);
    const int wait_flags = __WCLONE;
#else
    pid_t child = fork();
    if (child == 0)
        eps_intermediate(program);
    const int wait_flags = 0;
#endif
    if (child < 0)
        result = -errno;
    else {
        while (waitpid(child, &status, wait_flags) < 0 && errno == EINTR)
            ;
        result = -program->error;
    }
    eps_set_mask(&before, NULL);
    return result;
}

/* Take the folder's start lock and start the program, which inherits the lock. EPS_STARTED, EPS_NOT_NEEDED, -errno.
 *
 * Under the start lock the folder is looked at again: a program that another process has started meanwhile may hold it.
 * `although_held`: it is not looked at, because the collector that holds it is leaving. */
static int eps_start(int dir_fd, char *const *argv, char *const *envp, int although_held)
{
    eps_program program = {argv, envp, -1, -1, -1, 0};
    int result;
    program.lock_fd = openat(dir_fd, START_NAME, O_RDWR | O_CREAT | EPS_SAFELY, 0600);
    program.log_fd = openat(dir_fd, LOG_NAME, O_WRONLY | O_CREAT | O_APPEND | EPS_SAFELY, 0600);
    program.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (program.lock_fd < 0 || program.log_fd < 0 || program.null_fd < 0)
        result = -errno;
    else if (flock(program.lock_fd, LOCK_EX | LOCK_NB) != 0)
        result = errno == EWOULDBLOCK ? EPS_NOT_NEEDED : -errno;
    else if (!although_held && eps_folder_is_held(dir_fd, ".") == 1)
        result = EPS_NOT_NEEDED;
    else
        result = eps_spawn_twice(&program);
    /* Closing does not unlock: the new process has the same open file. */
    if (program.lock_fd >= 0)
        close(program.lock_fd);
    if (program.log_fd >= 0)
        close(program.log_fd);
    if (program.null_fd >= 0)
        close(program.null_fd);
    return result;
}

#endif
