/* config.h - what the environment says, read once when the library is loaded. */
#ifndef LF_CONFIG_H
#define LF_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

struct lf_config {
	char broker[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "": never fuse */
	bool eager;             /* LOOPFUSE_EAGER=1: pair before the first payload byte */
	uint32_t after;         /* LOOPFUSE_AFTER: I/O calls before a claim */
	int64_t eager_wait_ns;  /* LOOPFUSE_EAGER_WAIT_MS: how long a first byte may wait */
	bool one_cpu;           /* nobody to spin beside: spinning yields at each look */
	int64_t spin_ns;        /* LOOPFUSE_SPIN_US: longest spin before a sleep; 0: never */
};

extern struct lf_config lf_config;

void lf_config_init(void);

#endif
