"""Ways to realise the same plan: in-process netlink, or Mininet's own objects."""
