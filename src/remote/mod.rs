//! One host from the laptop: agent client, blob transfer, tunnel.
