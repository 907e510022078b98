"""The calls about who said what: approvals, the log and its proof, anchors, cases."""
