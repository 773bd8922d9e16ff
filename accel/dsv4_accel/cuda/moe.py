"""Mixture of experts: mirrors dsv4.ops.moe."""

from dsv4_accel.cuda.route import route, route_by_id
