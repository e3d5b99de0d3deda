package method

var (
	// SystemGC deletes what is over without waiting for any threshold. It can
	// be said again.
	SystemGC        = report[Empty, Empty]("System.GC")
	SystemReconcile = write[Empty, IndexResponse]("System.ReconcileSummaries")
)
