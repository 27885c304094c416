package main

func vectors()    {}
func quantizers() {}
