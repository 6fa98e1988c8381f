// SPDX-License-Identifier: GPL-2.0
/*
 * Never loaded: puts every structure that user space shares with the programs into one object's
 * BTF, where the alignment test compares it with its description in lab/layouts.
 */
#define THIS_FILE FILE_BPF_LXC

#include "lib/arp.h"
#include "lib/common.h"
#include "lib/config.h"
#include "lib/drop.h"
#include "lib/encap.h"
#include "lib/eps.h"
#include "lib/eth.h"
#include "lib/events.h"
#include "lib/ipcache.h"
#include "lib/metrics.h"
#include "lib/mind.h"
#include "lib/trace.h"

/* A type lands in BTF when a global refers to it. A macro for the two names it makes of one. */
#define CHECKED(name) const volatile struct name *checked_##name

CHECKED(endpoint_key);
CHECKED(endpoint_info);
CHECKED(ipcache_key);
CHECKED(remote_endpoint_info);
CHECKED(tunnel_map_key);
CHECKED(tunnel_map_value);
CHECKED(metrics_key);
CHECKED(metrics_value);
CHECKED(mac);
CHECKED(event_header);
CHECKED(drop_record);
CHECKED(trace_notify);
CHECKED(mind_note);
CHECKED(mind_record);
