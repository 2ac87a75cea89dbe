/* A disk that fails on purpose: stands before the C library's calls that change files under one folder, and counts them.
 *
 * fail_at(folder, first, only, error): from the FIRST such call on (from 0) every call fails with ERROR and changes nothing, as
 * nothing changes on disk after a process is killed; with ONLY, just that one. error = 0 only counts. kill_at(folder, first)
 * ends the process at that call by SIGKILL. Both return how many calls the setting before them has seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[4096] = "";
static char last[4096] = "";
static long first = -1, seen = 0;
static int only = 0, error = 0, deadly = 0;

static long set(const char *where, long at, int once, int number, int kills) {
  pthread_mutex_lock(&lock);
  long before = seen;
  snprintf(folder, sizeof folder, "%s", where);
  first = at, only = once, error = number, deadly = kills, seen = 0, last[0] = 0;
  pthread_mutex_unlock(&lock);
  return before;
}

long fail_at(const char *where, long at, int once, int number) { return set(where, at, once, number, 0); }
long kill_at(const char *where, long at) { return set(where, at, 1, 0, 1); }
const char *failed(void) { return last; }

/* Whether this call fails now. */
static int fails(const char *path) {
  if (!folder[0] || !path || strncmp(path, folder, strlen(folder))) return 0;
  pthread_mutex_lock(&lock);
  long number = seen++;
  int now = first >= 0 && (only ? number == first : number >= first);
  if (now && !last[0]) snprintf(last, sizeof last, "%s", path);
  pthread_mutex_unlock(&lock);
  if (now && deadly) kill(getpid(), SIGKILL);
  if (now && error) errno = error;
  return now && error;
}

/* The same for a path that begins at an open folder. */
static int fails_at(int at, const char *path) {
  char link[64], full[8192];
  if (at == AT_FDCWD || !path || path[0] == '/') return fails(path);
  snprintf(link, sizeof link, "/proc/self/fd/%d", at);
  ssize_t length = readlink(link, full, 4096);
  if (length < 0) return 0;
  snprintf(full + length, sizeof full - length, "/%s", path);
  return fails(full);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))

#define OPEN(name)                                     \
  int name(const char *path, int flags, ...) {         \
    va_list more;                                      \
    va_start(more, flags);                             \
    mode_t mode = va_arg(more, mode_t);                \
    va_end(more);                                      \
    if (WRITES(flags) && fails(path)) return -1;       \
    return REAL(name)(path, flags, mode);              \
  }
#define OPENAT(name)                                           \
  int name(int at, const char *path, int flags, ...) {         \
    va_list more;                                              \
    va_start(more, flags);                                     \
    mode_t mode = va_arg(more, mode_t);                        \
    va_end(more);                                              \
    if (WRITES(flags) && fails_at(at, path)) return -1;        \
    return REAL(name)(at, path, flags, mode);                  \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int mkdir(const char *path, mode_t mode) { return fails(path) ? -1 : REAL(mkdir)(path, mode); }
int rmdir(const char *path) { return fails(path) ? -1 : REAL(rmdir)(path); }
int unlink(const char *path) { return fails(path) ? -1 : REAL(unlink)(path); }
int unlinkat(int at, const char *path, int flags) { return fails_at(at, path) ? -1 : REAL(unlinkat)(at, path, flags); }
int rename(const char *from, const char *to) { return fails(from) ? -1 : REAL(rename)(from, to); }
