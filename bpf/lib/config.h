/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Configuration of one loaded object: constants the loader writes into .rodata before load.
 *
 * Every object carries all of them, so one set of values serves all programs of a device. The
 * verifier sees frozen values: code of a feature that is off is neither verified nor run. Addresses
 * are in network byte order.
 */
#pragma once

#include "common.h"

/* --- Asked by nearly every packet: first, and so in one line of the cache ---------------------- */

/* The pod's address; from-container drops any other source. */
const volatile __be32 endpoint_ipv4 = 0;

/* Identity number of the pod's labels; the VNI of what it sends through the tunnel. */
const volatile __u32 security_identity = 0;

/* Index of the interface we sit on. */
const volatile __u32 interface_ifindex = 0;

/* Address of cilium_host: the pods' default gateway. */
const volatile __be32 router_ipv4 = 0;

/* Network mask of a node's pod CIDR (255.255.255.0 = 0x00ffffff): key of cilium_tunnel_map. */
const volatile __be32 pod_cidr_mask = bpf_htonl(0xffffff00);

/* Network mask of all nodes' pods, or of ours: what no service, node or stranger has an address in. */
const volatile __be32 pods_mask = bpf_htonl(0xffffff00);

/* Life of an entry without packets, s; Cilium 1.13's defaults. */
const volatile __u32 ct_timeout_tcp_s = 21600;
const volatile __u32 ct_timeout_tcp_syn_s = 60;
const volatile __u32 ct_timeout_tcp_fin_s = 10;
const volatile __u32 ct_timeout_any_s = 60;

/* Aggregated traces: a flow is told of again after this silence, s. */
const volatile __u32 ct_report_interval_s = 5;

/* Programs can be armed to tell what they look up and decide (mind.h). */
const volatile bool enable_mind = true;

/* A pod's programs do in two what else is done in seven: from-container tracks and sends (7 and 29
 * are called for services alone), handle_policy and to-container track and deliver. Cilium leaves
 * out 11, 13, 27 and 28 where IPv4 is the only protocol, 25 and 29 without services, 7 never. */
const volatile bool inline_tail_calls = false;

/* Pods have routes of their own; packets reach them through the stack and to-container. */
const volatile bool enable_endpoint_routes = false;

/* The eBPF host routing of Cilium 1.9: packets go from hook to device past the node's stack. Off:
 * legacy, through the stack and, for pods, cilium_host. */
const volatile bool enable_host_routing = false;

/* Pods on other nodes are reached through cilium_vxlan; false: the underlay routes pod CIDRs. */
const volatile bool enable_tunnel = true;

/* Packets to a service address are translated in from-container. */
const volatile bool enable_services = true;

/* cilium_policy decides, a miss is a drop; false: everything is allowed and nothing looked up. */
const volatile bool enable_policy = false;

/* A program of the user's in cilium_calls_custom runs after the pod's programs have decided. */
const volatile bool enable_custom_calls = false;

/* Endpoint id of the pod (bpf_lxc) or of the host (bpf_host); `source` of every notification and
 * the slot of handle_policy in cilium_call_policy. */
const volatile __u16 endpoint_id = 0;

/* --- Who this object is ---------------------------------------------------------------------- */

/* MAC of the interface we sit on; for a pod the host end of its veth, the answer to its ARP. */
const volatile __u8 interface_mac[ETH_ALEN] = {};

/* --- The node -------------------------------------------------------------------------------- */

/* MAC of cilium_host: destination of frames handed to the host through cilium_net. */
const volatile __u8 router_mac[ETH_ALEN] = {};

/* The node's address on the underlay: tunnel endpoint, masquerade and NodePort address. */
const volatile __be32 node_ipv4 = 0;

/* Interfaces of the node: cilium_host, cilium_net, cilium_vxlan and the uplink. */
const volatile __u32 host_ifindex = 0;
const volatile __u32 cilium_net_ifindex = 0;
const volatile __u32 tunnel_ifindex = 0;
const volatile __u32 native_ifindex = 0;

/* --- NAT ------------------------------------------------------------------------------------- */

/* Pods' packets to the world leave with the node's address, translated in to-netdev. */
const volatile bool enable_masquerade = false;

/* Destinations in this network are never masqueraded: the cluster's, where it is routed. */
const volatile __be32 native_routing_cidr = 0;
const volatile __be32 native_routing_cidr_mask = bpf_htonl(0xffffffff);

/* Ports translated sources are given, host byte order. */
const volatile __u16 snat_port_min = 32768;
const volatile __u16 snat_port_max = 65535;

/* --- NodePort -------------------------------------------------------------------------------- */

/* Services are reachable from outside on the uplink. */
const volatile bool enable_nodeport = false;

/* A remote backend gets the client's own packet and answers it directly; false: the node puts its
 * own address as source. Needs routed pods (no tunnel). */
const volatile bool enable_dsr = false;

/* Largest packet the uplink takes, bytes from the IPv4 header on. */
const volatile __u32 native_mtu = 1500;

/* --- Conntrack ------------------------------------------------------------------------------- */

/* Later fragments find their ports in cilium_ipv4_frag_datagrams; false: fragments are dropped. */
const volatile bool enable_ipv4_fragments = true;

/* Flows of TCP that the node remembers: the loader makes cilium_ct4_global so large. */
const volatile __u32 ct_tcp_max = 32768;

/* Life of a service's entry without packets, s. */
const volatile __u32 ct_timeout_service_tcp_s = 21600;
const volatile __u32 ct_timeout_service_any_s = 60;

/* --- Policy ---------------------------------------------------------------------------------- */

/* Drops by policy are told of as "audited" and pass. */
const volatile bool policy_audit_mode = false;

/* --- Services -------------------------------------------------------------------------------- */

/* New flows from outside choose their backend by Maglev hashing; pods always choose at random. */
const volatile bool enable_maglev = false;

/* Source a pod sees when it reaches itself through a service: 169.254.42.1. */
const volatile __be32 service_loopback_ipv4 = bpf_htonl(0xa9fe2a01);

/* --- Prefilter ------------------------------------------------------------------------------- */

/* XDP drops what comes from an address in cilium_cidr_v4_dyn or cilium_cidr_v4_fix. */
const volatile bool enable_prefilter = false;
