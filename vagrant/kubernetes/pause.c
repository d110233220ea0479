// The process that holds a pod's namespaces: it waits, reaps orphans, and goes when told to.
// `pause -v` says its version and ends: `kubeadm upgrade` runs that as the Job that shows the cluster's health.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal) {
  (void)signal;
  _exit(0);
}

static void reap(int signal) {
  (void)signal;
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
}

int main(int count, char **arguments) {
  for (int at = 1; at < count; at++) {
    if (!strcmp(arguments[at], "-v")) {
      puts("pause.c " VERSION);
      return 0;
    }
  }
  struct sigaction on_end = {.sa_handler = leave};
  struct sigaction on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
  if (sigaction(SIGINT, &on_end, NULL) || sigaction(SIGTERM, &on_end, NULL) || sigaction(SIGCHLD, &on_child, NULL)) {
    return 1;
  }
  for (;;) {
    pause();
  }
}
