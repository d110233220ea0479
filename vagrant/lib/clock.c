// Moves the real-time clock of a host that is a container: `clock PID SECONDS FILE` while the host stands still, where PID
// is its init and FILE names the watcher.
//
// Programs read the time in the vDSO, code that the kernel maps into each of them. What is written through /proc/PID/mem
// goes to a copy of the page that is the process's own, as a debugger's breakpoints do: here jumps to code that makes the
// system call and adds SECONDS. Children inherit it; a program that is started anew has the kernel's vDSO, so a watcher in
// the background does the same to each. It ends with the host, or when the next call names the same FILE.
//
// Exit code 75: a thread stands in the bytes that are to be replaced. Let the host run for a moment and try again.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

enum { MOVED = 0, FAILED = 1, AGAIN = 75 };

// The hooks, as they stand in each process. They use what a system call spoils anyway.
__asm__(
    ".pushsection .rodata\n"
    ".balign 16\n"
    "hooks:\n"
    "hook_clock_gettime:\n"
    "  mov $228, %eax\n"
    "  syscall\n"
    "  test %eax, %eax\n"
    "  jnz 1f\n"
    "  test %edi, %edi\n" // CLOCK_REALTIME
    "  jz 0f\n"
    "  cmp $5, %edi\n" // CLOCK_REALTIME_COARSE
    "  jnz 1f\n"
    "0: mov hooks_offset(%rip), %rcx\n"
    "  add %rcx, (%rsi)\n"
    "1: ret\n"
    "hook_gettimeofday:\n"
    "  mov $96, %eax\n"
    "  syscall\n"
    "  test %eax, %eax\n"
    "  jnz 1f\n"
    "  test %rdi, %rdi\n"
    "  jz 1f\n"
    "  mov hooks_offset(%rip), %rcx\n"
    "  add %rcx, (%rdi)\n"
    "1: ret\n"
    "hook_time:\n"
    "  push %rdi\n"
    "  xor %edi, %edi\n"
    "  mov $201, %eax\n"
    "  syscall\n"
    "  pop %rdi\n"
    "  add hooks_offset(%rip), %rax\n"
    "  test %rdi, %rdi\n"
    "  jz 1f\n"
    "  mov %rax, (%rdi)\n"
    "1: ret\n"
    ".balign 8\n"
    "hooks_offset: .quad 0\n"
    "hooks_end:\n"
    ".popsection\n");
extern const uint8_t hooks[], hook_clock_gettime[], hook_gettimeofday[], hook_time[], hooks_offset[], hooks_end[];

// A function of the vDSO that becomes a jump. Its first eight bytes are written at once: the jump and what follows it.
enum { JUMP = 5, ENTRY = 8 };
struct function {
  uint64_t at;
  uint8_t before[ENTRY], after[ENTRY];
};
static struct function functions[8];
static int functions_count;

// The kernel's vDSO, which all programs share but for its address.
static const uint8_t *vdso;
static uint64_t vdso_length, hooks_at;
static uint8_t image[512];
static size_t image_length;
static bool is_true;

static struct stat host;
static int host_init;

static void complain(const char *format, ...) {
  va_list list;
  va_start(list, format);
  fputs("clock: ", stderr);
  vfprintf(stderr, format, list);
  fputc('\n', stderr);
  va_end(list);
  exit(FAILED);
}

static void lay_out(int64_t seconds) {
  vdso = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
  if (!vdso) {
    complain("this kernel gives programs no vDSO");
  }
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[512];
  unsigned long from, to;
  while (maps && fgets(line, sizeof line, maps)) {
    if (sscanf(line, "%lx-%lx", &from, &to) == 2 && from == (uint64_t)vdso) {
      vdso_length = to - from;
    }
  }
  image_length = (size_t)(hooks_end - hooks);
  memcpy(image, hooks, image_length);
  memcpy(image + (hooks_offset - hooks), &seconds, sizeof seconds);
  // Behind everything, where the last page has nothing.
  hooks_at = (vdso_length - image_length) & ~(uint64_t)15;
  for (uint64_t at = hooks_at; at < vdso_length; at++) {
    if (vdso[at]) {
      complain("the vDSO of this kernel has no room for %zu bytes", image_length);
    }
  }
  const Elf64_Ehdr *head = (const Elf64_Ehdr *)vdso;
  const Elf64_Shdr *sections = (const Elf64_Shdr *)(vdso + head->e_shoff);
  for (int section = 0; section < head->e_shnum; section++) {
    if (sections[section].sh_type != SHT_DYNSYM) {
      continue;
    }
    const Elf64_Sym *symbols = (const Elf64_Sym *)(vdso + sections[section].sh_offset);
    const char *names = (const char *)(vdso + sections[sections[section].sh_link].sh_offset);
    for (size_t number = 0; number < sections[section].sh_size / sizeof *symbols; number++) {
      const char *name = names + symbols[number].st_name;
      const uint8_t *hook = !strcmp(name, "__vdso_clock_gettime") ? hook_clock_gettime
                            : !strcmp(name, "__vdso_gettimeofday") ? hook_gettimeofday
                            : !strcmp(name, "__vdso_time")         ? hook_time
                                                                   : NULL;
      // Their other names are of the same address.
      if (!hook) {
        continue;
      }
      struct function *function = &functions[functions_count++];
      function->at = symbols[number].st_value;
      memcpy(function->before, vdso + function->at, ENTRY);
      memcpy(function->after, function->before, ENTRY);
      int32_t distance = (int32_t)(hooks_at + (uint64_t)(hook - hooks) - function->at - JUMP);
      function->after[0] = 0xe9;
      memcpy(function->after + 1, &distance, sizeof distance);
    }
  }
  if (functions_count != 3) {
    complain("the vDSO of this kernel has other functions than we know");
  }
}

static bool same(const struct stat *one, const struct stat *other) {
  return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

// Whether a process is the host's or of a pod on it.
static bool is_of_host(int pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
  struct stat space;
  int at = open(path, O_RDONLY | O_CLOEXEC);
  bool is = false;
  while (at >= 0 && !fstat(at, &space)) {
    if (same(&space, &host)) {
      is = true;
      break;
    }
    int parent = ioctl(at, NS_GET_PARENT);
    close(at);
    at = parent;
  }
  if (at >= 0) {
    close(at);
  }
  return is;
}

// Where the vDSO of a process is; 0 for one without (a zombie, a kernel thread).
static uint64_t vdso_of(int pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/auxv", pid);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return 0;
  }
  Elf64_auxv_t values[64];
  ssize_t length = read(file, values, sizeof values);
  close(file);
  for (ssize_t at = 0; at < length / (ssize_t)sizeof *values; at++) {
    if (values[at].a_type == AT_SYSINFO_EHDR) {
      return values[at].a_un.a_val;
    }
  }
  return 0;
}

// Whether a thread of a process stands behind the beginning of an instruction that is to go.
static bool stands_in_entry(int pid, uint64_t base) {
  char path[300], line[256];
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *tasks = opendir(path);
  if (!tasks) {
    return false;
  }
  bool stands = false;
  for (struct dirent *task; (task = readdir(tasks));) {
    snprintf(path, sizeof path, "/proc/%d/task/%s/syscall", pid, task->d_name);
    FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "r");
    if (!file) {
      continue;
    }
    if (fgets(line, sizeof line, file)) {
      // The instruction pointer is the last word; a thread that is not frozen (yet) has none.
      const char *last = strrchr(line, ' ');
      uint64_t pointer = last ? strtoull(last, NULL, 16) : 0;
      stands |= !last;
      for (int number = 0; number < functions_count; number++) {
        uint64_t entry = base + functions[number].at;
        stands |= pointer > entry && pointer < entry + JUMP;
      }
    }
    fclose(file);
  }
  closedir(tasks);
  return stands;
}

// Gives a process its clock. One that was just started runs nothing yet; of others the threads must stand still.
static int move(int pid, bool is_new) {
  uint64_t base = vdso_of(pid);
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/mem", pid);
  int memory = base ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (memory < 0) {
    return MOVED;
  }
  int result = MOVED;
  uint8_t seen[ENTRY];
  bool has_hooks = false, has_all = true;
  for (int number = 0; number < functions_count; number++) {
    const struct function *function = &functions[number];
    if (pread(memory, seen, ENTRY, (off_t)(base + function->at)) != ENTRY) {
      goto end; // It has ended.
    }
    bool is_hooked = !memcmp(seen, function->after, ENTRY);
    if (!is_hooked && memcmp(seen, function->before, ENTRY)) {
      goto end; // A vDSO of another kind: of a 32-bit program.
    }
    has_hooks |= is_hooked;
    has_all &= is_hooked;
  }
  if (is_true ? has_hooks : !has_all) {
    if (!is_true && !is_new && stands_in_entry(pid, base)) {
      result = AGAIN;
      goto end;
    }
  }
  // The hooks stay where they are even when nothing jumps there any more: a thread may be in them.
  if (!is_true || has_hooks) {
    if (pwrite(memory, image, image_length, (off_t)(base + hooks_at)) < 0) {
      fprintf(stderr, "clock: the vDSO of process %d cannot be written: %m\n", pid);
      result = FAILED;
    }
  }
  for (int number = 0; number < functions_count; number++) {
    const struct function *function = &functions[number];
    const uint8_t *entry = is_true ? function->before : function->after;
    if (is_true ? has_hooks : !has_all) {
      pwrite(memory, entry, ENTRY, (off_t)(base + function->at));
    }
  }
end:
  close(memory);
  return result;
}

static int move_all(bool is_new) {
  DIR *processes = opendir("/proc");
  int result = MOVED;
  for (struct dirent *process; processes && (process = readdir(processes));) {
    int pid = atoi(process->d_name);
    if (pid > 0 && is_of_host(pid)) {
      int moved = move(pid, is_new);
      result = moved == MOVED ? result : moved;
    }
  }
  if (processes) {
    closedir(processes);
  }
  return result;
}

// The watcher ---------------------------------------------------------------------------------------------------------

// Everybody hears of everything: of all that happens to processes let only programs that start pass, and the answer to the
// question itself.
static void filter(int events) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NLMSG_LENGTH(0) + sizeof(struct cn_msg)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXEC), 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_NONE), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
  if (setsockopt(events, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program)) {
    complain("no filter for events: %m");
  }
}

static int listen_to_events(void) {
  int events = socket(PF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
  if (events < 0 || bind(events, (struct sockaddr *)&address, sizeof address)) {
    complain("this kernel tells nobody of new programs (CONFIG_PROC_EVENTS): %m");
  }
  int room = 1 << 22;
  setsockopt(events, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  filter(events);
  enum proc_cn_mcast_op wish = PROC_CN_MCAST_LISTEN;
  char message[NLMSG_SPACE(sizeof(struct cn_msg) + sizeof wish)] = {0};
  struct nlmsghdr *head = (struct nlmsghdr *)message;
  *head = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(sizeof(struct cn_msg) + sizeof wish), .nlmsg_type = NLMSG_DONE};
  struct cn_msg *body = NLMSG_DATA(head);
  *body = (struct cn_msg){.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof wish};
  memcpy(body->data, &wish, sizeof wish);
  if (send(events, message, head->nlmsg_len, 0) < 0) {
    complain("no events of new programs: %m");
  }
  return events;
}

static pthread_barrier_t are_ready;

// One on each processor, ahead of every other thread there. A program that starts wakes it, and its processor gives it the
// turn before it goes back from the kernel to the program: nobody reads the clock before it is moved.
static void *watch(void *argument) {
  int processor = (int)(intptr_t)argument;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  sched_setaffinity(0, sizeof one, &one);
  struct sched_param first = {.sched_priority = 50};
  if (sched_setscheduler(0, SCHED_FIFO, &first)) {
    // The best that is to be had then: a program that ends at once may see the true time.
    setpriority(PRIO_PROCESS, 0, -20);
  }
  int events = listen_to_events();
  bool is_ready = false;
  struct timeval patience = {.tv_sec = 5};
  setsockopt(events, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  for (;;) {
    _Alignas(struct nlmsghdr) char message[1024];
    struct sockaddr_nl sender;
    socklen_t length = sizeof sender;
    ssize_t got = recvfrom(events, message, sizeof message, 0, (struct sockaddr *)&sender, &length);
    if (got < 0 && errno == ENOBUFS) {
      move_all(true);
      continue;
    }
    if (got < 0 && errno == EAGAIN && !is_ready) {
      complain("this machine's kernel does not answer who asks for new programs: is this a container?");
    }
    if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct cn_msg) + sizeof(struct proc_event)) || sender.nl_pid != 0) {
      continue;
    }
    const struct cn_msg *body = NLMSG_DATA((struct nlmsghdr *)message);
    struct proc_event event;
    memcpy(&event, body->data, sizeof event);
    if (event.what == PROC_EVENT_EXEC && is_of_host(event.event_data.exec.process_tgid)) {
      move(event.event_data.exec.process_tgid, true);
    } else if (event.what == PROC_EVENT_NONE && !is_ready) {
      is_ready = true;
      setsockopt(events, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0}, sizeof patience);
      pthread_barrier_wait(&are_ready);
    }
  }
  return NULL;
}

// Stays in the background, while the caller goes on as soon as nothing can start unseen.
static void start_watcher(int lock) {
  int ready[2];
  if (pipe2(ready, O_CLOEXEC)) {
    complain("no pipe: %m");
  }
  pid_t watcher = fork();
  if (watcher < 0) {
    complain("no watcher: %m");
  }
  char word = 0;
  if (watcher > 0) {
    close(ready[1]);
    close(lock);
    if (read(ready[0], &word, 1) != 1) {
      exit(FAILED); // It has said why.
    }
    return;
  }
  setsid();
  char text[16];
  int length = snprintf(text, sizeof text, "%d\n", getpid());
  if (ftruncate(lock, 0) || pwrite(lock, text, (size_t)length, 0) != length) {
    complain("no pid in the file: %m");
  }
  // Not one descriptor of who called: a lock among them would be held for as long as the host lives.
  for (int other = STDERR_FILENO + 1; other < sysconf(_SC_OPEN_MAX); other++) {
    if (other != lock && other != ready[1] && other != host_init) {
      close(other);
    }
  }
  mlockall(MCL_CURRENT | MCL_FUTURE);
  cpu_set_t processors;
  sched_getaffinity(0, sizeof processors, &processors);
  pthread_barrier_init(&are_ready, NULL, (unsigned)CPU_COUNT(&processors) + 1);
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 1 << 17);
  for (int processor = 0; processor < CPU_SETSIZE; processor++) {
    pthread_t thread;
    if (CPU_ISSET(processor, &processors) && pthread_create(&thread, &small, watch, (void *)(intptr_t)processor)) {
      complain("no thread");
    }
  }
  pthread_barrier_wait(&are_ready);
  int nothing = open("/dev/null", O_RDWR);
  dup2(nothing, 0);
  dup2(nothing, 1);
  dup2(nothing, 2);
  if (write(ready[1], "+", 1) != 1) {
    exit(FAILED);
  }
  close(ready[1]);
  struct pollfd end = {.fd = host_init, .events = POLLIN};
  while (poll(&end, 1, -1) < 0 && errno == EINTR) {
  }
  exit(0);
}

// Ends the watcher of a file. Its lock says that it lives; the number in a file that nobody locks may be anybody's.
static int take_over(const char *file) {
  int lock = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock < 0) {
    complain("%s: %m", file);
  }
  char text[16] = {0};
  if (flock(lock, LOCK_EX | LOCK_NB)) {
    if (pread(lock, text, sizeof text - 1, 0) <= 0 || atoi(text) <= 1 || kill(atoi(text), SIGTERM)) {
      complain("%s names no watcher that could be ended", file);
    }
    flock(lock, LOCK_EX);
  }
  return lock;
}

int main(int count, char **arguments) {
  if (count != 4) {
    complain("clock PID SECONDS FILE");
  }
  int pid = atoi(arguments[1]);
  int64_t seconds = atoll(arguments[2]);
  const char *file = arguments[3];
  is_true = seconds == 0;
  lay_out(seconds);
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
  struct stat own;
  host_init = (int)syscall(SYS_pidfd_open, pid, 0);
  if (host_init < 0 || stat(path, &host)) {
    complain("no process %d: %m", pid);
  }
  if (!stat("/proc/self/ns/pid", &own) && same(&own, &host)) {
    complain("the process %d has no pid namespace of its own", pid);
  }
  int lock = take_over(file);
  if (is_true) {
    unlink(file);
  } else {
    start_watcher(lock);
  }
  return move_all(false);
}
