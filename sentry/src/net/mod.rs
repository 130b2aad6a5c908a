//! Sockets and the network behind them.
