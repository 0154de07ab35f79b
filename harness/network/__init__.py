"""The impaired link: one description, three engines (netem, relay, model), and the proof.

Imports nothing heavy: endpoint containers and the process wrappers load this package too.
"""

from harness.network.link_json import link_from_json, link_to_json

__all__ = ["link_from_json", "link_to_json"]
