/*
 * Preloaded into a script: counts the calls that change something below a folder, over all threads and processes that
 * share its environment, and kills the process just before the n-th. strace can only count by thread.
 *   STEPS_BELOW  the folder (absolute)
 *   STEPS_LOG    each step is a line here: "rename /a/b"
 *   STEPS_KILL   the number of the step before which SIGKILL comes; 0: never
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void step(const char *name, const char *path) {
  const char *below = getenv("STEPS_BELOW"), *log = getenv("STEPS_LOG"), *kill_at = getenv("STEPS_KILL");
  if (!below || !log || strncmp(path, below, strlen(below)) != 0) return;
  /* the log is the counter: its lock makes the count one for all threads and processes */
  int fd = open(log, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return;
  flock(fd, LOCK_EX);
  char text[65536];
  int count = 1;
  ssize_t length;
  while ((length = read(fd, text, sizeof text)) > 0)
    for (ssize_t i = 0; i < length; i++) count += text[i] == '\n';
  char line[PATH_MAX + 32];
  int size = snprintf(line, sizeof line, "%s %s\n", name, path);
  if (syscall(SYS_write, fd, line, (size_t)size) != size) _exit(99);
  if (kill_at && count == atoi(kill_at)) kill(getpid(), SIGKILL);
  close(fd);
}

static void step_at(const char *name, int folder, const char *path) {
  char whole[PATH_MAX * 2] = "", link[64];
  if (path[0] != '/') {
    ssize_t length = -1;
    if (folder == AT_FDCWD) {
      if (getcwd(whole, PATH_MAX)) length = (ssize_t)strlen(whole);
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
      length = readlink(link, whole, PATH_MAX - 1);
    }
    if (length < 0) return;
    whole[length] = 0;
    strcat(whole, "/");
  }
  strncat(whole, path, PATH_MAX - 1);
  step(name, whole);
}

static void step_fd(const char *name, int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return;
  path[length] = 0;
  step(name, path);
}

#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

/* of two names the new one is the step's */
int rename(const char *a, const char *b) { step_at("rename", AT_FDCWD, b); return NEXT(int, "rename", const char *, const char *)(a, b); }
int renameat(int d, const char *a, int e, const char *b) { step_at("rename", e, b); return NEXT(int, "renameat", int, const char *, int, const char *)(d, a, e, b); }
int renameat2(int d, const char *a, int e, const char *b, unsigned f) { step_at("rename", e, b); return NEXT(int, "renameat2", int, const char *, int, const char *, unsigned)(d, a, e, b, f); }
int link(const char *a, const char *b) { step_at("link", AT_FDCWD, b); return NEXT(int, "link", const char *, const char *)(a, b); }
int linkat(int d, const char *a, int e, const char *b, int f) { step_at("link", e, b); return NEXT(int, "linkat", int, const char *, int, const char *, int)(d, a, e, b, f); }
int symlink(const char *a, const char *b) { step_at("symlink", AT_FDCWD, b); return NEXT(int, "symlink", const char *, const char *)(a, b); }
int symlinkat(const char *a, int d, const char *b) { step_at("symlink", d, b); return NEXT(int, "symlinkat", const char *, int, const char *)(a, d, b); }
int unlink(const char *a) { step_at("unlink", AT_FDCWD, a); return NEXT(int, "unlink", const char *)(a); }
int unlinkat(int d, const char *a, int f) { step_at("unlink", d, a); return NEXT(int, "unlinkat", int, const char *, int)(d, a, f); }
int rmdir(const char *a) { step_at("rmdir", AT_FDCWD, a); return NEXT(int, "rmdir", const char *)(a); }
int mkdir(const char *a, mode_t m) { step_at("mkdir", AT_FDCWD, a); return NEXT(int, "mkdir", const char *, mode_t)(a, m); }
int mkdirat(int d, const char *a, mode_t m) { step_at("mkdir", d, a); return NEXT(int, "mkdirat", int, const char *, mode_t)(d, a, m); }
int fsync(int fd) { step_fd("fsync", fd); return NEXT(int, "fsync", int)(fd); }
int fdatasync(int fd) { step_fd("fdatasync", fd); return NEXT(int, "fdatasync", int)(fd); }
int ftruncate(int fd, off_t n) { step_fd("ftruncate", fd); return NEXT(int, "ftruncate", int, off_t)(fd, n); }
int ftruncate64(int fd, off64_t n) { step_fd("ftruncate", fd); return NEXT(int, "ftruncate64", int, off64_t)(fd, n); }
