package par

// pause idles for n PAUSE instructions, a polite spin step that leaves the core's other thread room.
//
//go:noescape
func pause(n int)
